package identity

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"strings"
)

// pins are fingerprints of certificates (their DER), one of which a peer's own certificate must have.
type pins map[string]struct{}

// parsePins reads fingerprints in hexadecimal, with or without colons.
func parsePins(texts []string) (pins, error) {
	p := make(pins, len(texts))
	for _, text := range texts {
		sum, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(text), ":", ""))
		if err != nil {
			return nil, fmt.Errorf("error decoding fingerprints: error decoding fingerprint %q: %w", text, err)
		}
		if len(sum) != sha256.Size && len(sum) != sha512.Size {
			return nil, fmt.Errorf("error decoding fingerprints: fingerprints must be 32 or 64 bytes for sha256 or sha512, %q has %d", text, len(sum))
		}
		p[string(sum)] = struct{}{}
	}
	return p, nil
}

func (p pins) match(der []byte) bool {
	short, long := sha256.Sum256(der), sha512.Sum512(der)
	_, ok := p[string(short[:])]
	if !ok {
		_, ok = p[string(long[:])]
	}
	return ok
}
