// Package signing makes and checks the signatures of work: bearer tokens with which a submitter proves to an executor
// that it holds a private key.
//
// A token is a JWT in compact form. [Signer] writes the header {"alg":"RS512","typ":"JWT"} and the claims
// {"aud":["EXECUTOR"],"exp":SECONDS}, nothing else, and makes a new one for every request. It says nothing about the
// request: who sees it may use it towards that executor until it expires, which is why links should have TLS.
//
// [Verifier] takes RS256, RS384, RS512 and the PS forms of them, "aud" as text or a list, "exp" with a fraction, as text
// or not at all, and honours "nbf" and "iat" if they are there. Clocks are compared without leeway, as other nodes do;
// the errors about time say what both clocks say. Tokens of more than 16 KiB are refused unread.
//
// The key files are read at every use, so a changed key is in effect at once and a broken one is an error until it is
// mended. All methods may be called from any goroutine.
package signing

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// DefaultExpiration is how long a token is good for if nothing else is configured.
const DefaultExpiration = 5 * time.Minute

// maxToken is the longest token that is looked at: one of a 16,384 bit key with a list of a hundred nodes has half of it.
const maxToken = 16 << 10

// Signer makes tokens.
type Signer struct {
	KeyFile    string           // PEM, one RSA private key in PKCS #1 or PKCS #8 form.
	Expiration time.Duration    // How long a token is good for; 0 is DefaultExpiration.
	Now        func() time.Time // nil is time.Now.
}

// Sign makes a token for requests to a node.
func (s Signer) Sign(node wire.NodeID) (string, error) {
	key, err := identity.LoadRSAKey(s.KeyFile)
	if err != nil {
		return "", fmt.Errorf("could not load signing key file: %w", err)
	}
	expiration := s.Expiration
	if expiration == 0 {
		expiration = DefaultExpiration
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS512, jwt.RegisteredClaims{
		Audience:  jwt.ClaimStrings{string(node)},
		ExpiresAt: jwt.NewNumericDate(now(s.Now).Add(expiration)),
	})
	return token.SignedString(key)
}

func now(clock func() time.Time) time.Time {
	if clock == nil {
		return time.Now()
	}
	return clock()
}

// Verifier checks tokens that are meant for one node.
type Verifier struct {
	KeyFile string           // PEM, one RSA public key ("PUBLIC KEY").
	Node    wire.NodeID      // This node: the audience.
	Now     func() time.Time // nil is time.Now.
}

var errAudience = errors.New("token audience did not match node ID")

// Verify returns nil for a good token. The error's text is what the client is told.
func (v Verifier) Verify(token string) error {
	if len(token) > maxToken {
		return fmt.Errorf("could not verify signature: token has %d bytes, at most %d are read", len(token), maxToken)
	}
	key, err := identity.LoadRSAPublicKey(v.KeyFile)
	if err != nil {
		return fmt.Errorf("could not load verifying key file: %w", err)
	}
	claims, err := parse(token, key)
	if err == nil {
		err = checkTimes(claims, now(v.Now))
	}
	if err != nil {
		return fmt.Errorf("could not verify signature: %w", err)
	}
	for _, audience := range claims.Audience {
		if audience == string(v.Node) {
			return nil
		}
	}
	return errAudience
}

// parse checks form and signature.
func parse(token string, key *rsa.PublicKey) (*jwt.RegisteredClaims, error) {
	var claims jwt.RegisteredClaims
	var method error // The library would wrap it in words about its own workings.
	_, err := jwt.NewParser(jwt.WithoutClaimsValidation()).ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		method = checkMethod(t.Method)
		return key, method
	})
	switch {
	case method != nil:
		return nil, method
	case errors.Is(err, rsa.ErrVerification):
		return nil, fmt.Errorf("%w: another key has signed it than the one that belongs to this node's public key", rsa.ErrVerification)
	case err != nil:
		return nil, errors.New(innermost(err))
	}
	return &claims, nil
}

func checkMethod(m jwt.SigningMethod) error {
	switch m.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return nil
	}
	if m == jwt.SigningMethodNone {
		return errors.New("'none' signature type is not allowed")
	}
	return fmt.Errorf("signing method %s is not allowed, want RS256, RS384, RS512, PS256, PS384 or PS512", m.Alg())
}

// innermost is the text of the last cause, without the classes that the library puts in front.
func innermost(err error) string {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		causes := e.Unwrap()
		return innermost(causes[len(causes)-1])
	case interface{ Unwrap() error }:
		return strings.TrimPrefix(err.Error(), e.Unwrap().Error()+": ")
	}
	return err.Error()
}

// checkTimes compares the claims with the clock of this node. The first words are those that existing nodes use.
func checkTimes(claims *jwt.RegisteredClaims, now time.Time) error {
	const skew = "if it was made just now, set one of the two clocks"
	if t := claims.ExpiresAt; t != nil && !now.Before(t.Time) {
		return fmt.Errorf("token is expired by %v (it ended at %s and this node's clock says %s: %s, or make tokens that last longer)",
			now.Sub(t.Time), stamp(t.Time), stamp(now), skew)
	}
	if t := claims.IssuedAt; t != nil && now.Before(t.Time) {
		return fmt.Errorf("token used before issued (at %s, and this node's clock says %s: %s)", stamp(t.Time), stamp(now), skew)
	}
	if t := claims.NotBefore; t != nil && now.Before(t.Time) {
		return fmt.Errorf("token is not valid yet (not before %s, and this node's clock says %s: %s)", stamp(t.Time), stamp(now), skew)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
