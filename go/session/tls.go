package session

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// tlsFiles are the files and rules of a TLS profile, for either side of a connection.
type tlsFiles struct {
	Cert               string   `json:"cert"`
	Key                string   `json:"key"`
	CAs                string   `json:"cas"`
	Pins               []string `json:"pins"`
	RequireClientCert  bool     `json:"require_client_cert"`  // Server side only.
	InsecureSkipVerify bool     `json:"insecure_skip_verify"` // Client side only.
	SkipNamesCheck     bool     `json:"skip_names_check"`
	MinTLS13           bool     `json:"min_tls13"`
}

// tlsProfile is the key "tls" of a request: the name of a profile of the node's configuration, or a profile itself.
type tlsProfile struct {
	name  string
	files *tlsFiles
}

// UnmarshalJSON takes a string or an object.
func (p *tlsProfile) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte("{")) {
		p.files = &tlsFiles{}
		return json.Unmarshal(b, p.files)
	}
	err := json.Unmarshal(b, &p.name)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		wrong.Type = reflect.TypeFor[tlsProfile]()
	}
	return err
}

// readable tells of the files of profiles that cannot be read, once each: most are of both sides of a profile.
func readable(profiles map[string]tlsFiles) error {
	var told []string
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		f := profiles[name]
		for _, path := range []string{f.Cert, f.Key, f.CAs} {
			if path == "" {
				continue
			}
			if err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK, unix.AT_EACCESS); err != nil {
				told = append(told, fmt.Sprintf("TLS profile %q: %s: %v", name, path, err))
			}
		}
	}
	if len(told) == 0 {
		return nil
	}
	return &Error{Code: BadConfig, Msg: strings.Join(told, "\n")}
}

// directives are the profiles of a name as a daemon's command line: a client's, and a server's if there is a certificate.
// trust is what the client's trusts if it names no CAs.
func (f tlsFiles) directives(name, trust string) []string {
	common := []string{
		"name=" + name, "cert=" + f.Cert, "key=" + f.Key,
		"skipreceptornamescheck=" + strconv.FormatBool(f.SkipNamesCheck), "mintls13=" + strconv.FormatBool(f.MinTLS13),
	}
	args := append([]string{"--tls-client"}, common...)
	args = append(args, "insecureskipverify="+strconv.FormatBool(f.InsecureSkipVerify))
	args = appendGiven(args, "rootcas", f.rootCAs(trust))
	args = appendGiven(args, "pinnedservercert", list(f.Pins))
	if f.Cert == "" {
		return args
	}
	args = append(append(args, "--tls-server"), common...)
	args = append(args, "requireclientcert="+strconv.FormatBool(f.RequireClientCert))
	if f.RequireClientCert {
		args = appendGiven(args, "clientcas", f.CAs)
		args = appendGiven(args, "pinnedclientcert", list(f.Pins))
	}
	return args
}

func appendGiven(args []string, key, value string) []string {
	if value == "" {
		return args
	}
	return append(args, key+"="+value)
}

func list(items []string) string {
	if len(items) == 0 {
		return ""
	}
	text, _ := json.Marshal(items) // Strings always marshal.
	return string(text)
}

// clientTLS is the profile for what this node dials; nil without one.
func (h *host) clientTLS(p *tlsProfile) (*identity.ClientProfile, error) {
	if p == nil {
		return nil, nil
	}
	if p.files == nil {
		profile, err := h.built().ClientProfile(p.name)
		return profile, configError(err)
	}
	f := p.files
	profile, err := identity.NewClient(identity.ClientOptions{
		Name: "of a request", Cert: f.Cert, Key: f.Key, RootCAs: f.rootCAs(h.trust), InsecureSkipVerify: f.InsecureSkipVerify,
		PinnedServerCert: f.Pins, SkipReceptorNamesCheck: f.SkipNamesCheck, MinTLS13: f.MinTLS13,
	}, h.built().ProfileOwner())
	return profile, configError(err)
}

// rootCAs is the file of the CAs that may have signed the certificates of servers; trust if none is given.
func (f tlsFiles) rootCAs(trust string) string {
	if f.CAs != "" || f.InsecureSkipVerify {
		return f.CAs
	}
	return trust
}

// serverTLS is the profile for those who dial this node; nil without one.
func (h *host) serverTLS(p *tlsProfile) (*identity.ServerProfile, error) {
	if p == nil {
		return nil, nil
	}
	if p.files == nil {
		profile, err := h.built().ServerProfile(p.name)
		return profile, configError(err)
	}
	f := p.files
	if f.Cert == "" {
		return nil, badRequest(`key "tls": this side is the server and shows a certificate: give "cert" and "key"`)
	}
	opt := identity.ServerOptions{
		Name: "of a request", Cert: f.Cert, Key: f.Key, RequireClientCert: f.RequireClientCert,
		SkipReceptorNamesCheck: f.SkipNamesCheck, MinTLS13: f.MinTLS13,
	}
	if f.RequireClientCert { // The CAs and pins of a file set for both sides are those of servers otherwise.
		opt.ClientCAs, opt.PinnedClientCert = f.CAs, f.Pins
	}
	profile, err := identity.NewServer(opt, h.built().ProfileOwner())
	return profile, configError(err)
}

func configError(err error) error {
	if err == nil {
		return nil
	}
	return toError(err, BadConfig)
}

// dialTLS is the configuration for streams to a node; nil without a profile.
func (h *host) dialTLS(p *tlsProfile, node wire.NodeID) (*tls.Config, error) {
	profile, err := h.clientTLS(p)
	if profile == nil {
		return nil, err
	}
	own := h.built().Node.ID()
	return profile.StreamConfig(cmp.Or(node.At(own), own)), nil // No certificate has "localhost".
}

// acceptTLS is the configuration of a service in the mesh; nil without a profile.
func (h *host) acceptTLS(p *tlsProfile) (*tls.Config, error) {
	profile, err := h.serverTLS(p)
	if profile == nil {
		return nil, err
	}
	return profile.StreamConfig(), nil
}
