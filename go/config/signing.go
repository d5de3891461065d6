package config

import (
	"slices"
	"time"
)

// WorkSigning is how this node signs work that it gives to others.
type WorkSigning struct {
	PrivateKey      string        // Path of a PEM file.
	TokenExpiration time.Duration // How long a signature is good for; > 0.

	expiration string
}

// WorkVerification is how this node checks signed work that is given to it.
type WorkVerification struct {
	PublicKey string // Path of a PEM file.
}

// signingDirectives are the keys of signed work.
func signingDirectives() []*directive {
	return []*directive{
		of(directive{name: "work-signing", help: "Sign work for other nodes", group: workers, times: once, bare: "privatekey"},
			WorkSigning{}, checkWorkSigning,
			text("privatekey", "File with an RSA private key", func(w *WorkSigning) *string { return &w.PrivateKey }),
			text("tokenexpiration", "How long a signature is good for, as in 1h30m", func(w *WorkSigning) *string { return &w.expiration }).shown("5m"),
		),
		of(directive{name: "work-verification", help: "Verify signed work", group: workers, times: once, bare: "publickey"},
			WorkVerification{}, nil,
			text("publickey", "File with an RSA public key", func(w *WorkVerification) *string { return &w.PublicKey }),
		),
	}
}

func checkWorkSigning(c *checker, w *WorkSigning) {
	w.TokenExpiration = 5 * time.Minute
	defer func() { w.expiration = w.TokenExpiration.String() }()
	if w.expiration == "" {
		return
	}
	d, err := time.ParseDuration(w.expiration)
	switch {
	case err != nil:
		c.refuse("tokenexpiration", "", "failed to parse TokenExpiration -- valid examples include '1.5h', '30m', '30m10s'")
	case d <= 0:
		c.refuse("tokenexpiration", "it must be longer than nothing", "signatures that expire after %v are of no use", d)
	default:
		w.TokenExpiration = d
	}
}

// has reports whether a directive of that name was given, before or after the present one.
func (c *checker) has(name string) bool {
	return slices.ContainsFunc(c.entries, func(e *entry) bool { return e.spec.name == name })
}
