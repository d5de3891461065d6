package config

import (
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	tlsSrv  = "--tls-server name=srv cert=c key=k"
	tlsCli  = "--tls-client name=cli cert= key="
	makeReq = "--cert-makereq commonname=x outreq=r"
	signReq = "--cert-signreq req=r cacert=c cakey=k outcert=o"
)

func TestF096F097TLSProfiles(t *testing.T) {
	path := write(t, "tls.yml", `---
- control-service: {service: ctl, tls: srv}
- tls-server:
    name: srv
    cert: c
    key: k
    requireclientcert: true
    clientcas: ca
    pinnedclientcert: [aa, "bb:cc"]
    skipreceptornamescheck: yes
    mintls13: true
- tls-client:
    name: srv
    cert: ""
    key: ""
    rootcas: ca
    insecureskipverify: true
    pinnedservercert: aa
`)
	cfg := mustParse(t, "-c", path)
	server, _ := First[TLSServer](cfg)
	client, _ := First[TLSClient](cfg)
	if want := (TLSServer{"srv", "c", "k", true, "ca", []string{"aa", "bb:cc"}, true, true}); !reflect.DeepEqual(server, want) {
		t.Errorf("got %+v, want %+v", server, want)
	}
	if want := (TLSClient{Name: "srv", RootCAs: "ca", InsecureSkipVerify: true, PinnedServerCert: []string{"aa"}}); !reflect.DeepEqual(client, want) {
		t.Errorf("got %+v, want %+v", client, want)
	}
}

func TestF114NamesOfProfiles(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"--tcp-listener 1 tls=srv " + tlsSrv, ""},
		{"--tcp-peer h:1 tls=cli " + tlsCli, ""},
		{"--tcp-server port=1 remotenode=a remoteservice=b tlsserver=srv tlsclient=cli " + tlsSrv + " " + tlsCli, ""},
		{"--tcp-client service=a address=h:1 tlsserver=srv tlsclient=cli " + tlsSrv + " " + tlsCli, ""},
		{"--control-service tls=srv tcplisten=1 tcptls=srv " + tlsSrv, ""},
		{"--control-service tcptls=nosuch", ""},
		{"--tcp-peer h:1 tls=srv " + tlsSrv, "unknown TLS config srv (that name belongs to another kind of profile, this parameter needs a tls-client)"},
		{"--tcp-listener 1 tls=x " + tlsSrv, "unknown TLS config x (define it with tls-server)"},
		{"--tcp-server port=1 remotenode=a remoteservice=b tlsclient=x", "unknown TLS config x"},
		{"--tcp-client service=a address=h:1 tlsserver=x", "unknown TLS config x"},
		{tlsSrv + " " + tlsSrv, "tls-server srv is defined more than once (first given at argument 2)"},
		{tlsSrv + " --tls-client name=srv cert= key=", ""},
		{"--tls-server name= cert=c key=k", "must provide a name"},
		{"--tls-client name= cert= key=", "must provide a name"},
		{"--tls-client name=a cert=c key=", "cert and key must both be supplied or neither"},
		{"--tls-client name=a", "error in --tls-client: required parameters missing: cert, key"},
		{"--tls-server name=a cert=c", "error in --tls-server: required parameter missing: key"},
	} {
		_, err := ParseArgs(strings.Fields(tc.args))
		if tc.want == "" && err != nil {
			t.Errorf("%s: %v", tc.args, err)
		} else if tc.want != "" {
			wantError(t, err, tc.want)
		}
	}
}

func TestF191CertificateDirectives(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"--cert-init commonname=x bits=2048 outcert=c outkey=k", ""},
		{"--cert-init commonname=x bits=0 outcert=c outkey=k notbefore=2030-01-01T00:00:00Z notafter=2040-01-01T00:00:00+02:00", ""},
		{makeReq + " bits=2048 outkey=k", ""},
		{makeReq + " inkey=k nodeid=a nodeid=b ipaddress=::1", ""},
		{signReq + " verify=yes", ""},
		{signReq + " --local-only", "cannot specify any other options with cert-signreq"},
		{"--cert-init commonname=x outcert=c", "error in --cert-init: required parameters missing: bits, outkey"},
		{"--cert-init commonname= bits=0 outcert=c outkey=k", "must provide CommonName"},
		{"--cert-init commonname=x bits=512 outcert=c outkey=k", "rsa: key too small: 512 bits"},
		{"--cert-init commonname=x bits=-5 outcert=c outkey=k", "rsa: key too small"},
		{"--cert-init commonname=x bits=2048 outcert=c outkey=c", "outkey and the output are the same file: c"},
		{"--cert-init commonname=x bits=2048 outcert= outkey=k", "outcert must not be empty"},
		{"--cert-init commonname=x bits=2048 outcert=c outkey=k notbefore=yesterday", `parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
		{"--cert-init commonname=x bits=2048 outcert=c outkey=k notafter=2001-01-01T00:00:00Z", "the certificate would never be valid"},
		{"--cert-makereq commonname= outreq=r inkey=k", "must provide CommonName"},
		{makeReq, "must provide either InKey or OutKey"},
		{makeReq + " inkey=a outkey=b bits=2048", "cannot use both InKey and OutKey"},
		{makeReq + " inkey=a bits=2048", "cannot specify key bits when reading an already-existing key"},
		{makeReq + " outkey=a", "must specify key bits when creating a new key"},
		{makeReq + " inkey=a ipaddress=1.2.3", "invalid IP address: 1.2.3"},
	} {
		cfg, err := ParseArgs(strings.Fields(tc.args))
		switch {
		case tc.want != "":
			wantError(t, err, tc.want)
		case err != nil:
			t.Errorf("%s: %v", tc.args, err)
		case cfg.Action != MakeCertificate || len(cfg.Directives) != 1:
			t.Errorf("%s: got action %d with %q", tc.args, cfg.Action, names(cfg))
		}
	}
}

func TestF038CertificateDirectiveInFile(t *testing.T) {
	path := write(t, "req.yml", `
- cert-makereq:
    commonname: foo cert
    bits: 2048
    dnsname: [localhost, b]
    ipaddress: 127.0.0.1
    nodeid: foo
    outreq: r
    outkey: k
`)
	cfg := mustParse(t, "-c", path)
	got, _ := First[CertMakeReq](cfg)
	want := CertMakeReq{
		CommonName: "foo cert", Bits: 2048, DNSNames: []string{"localhost", "b"}, IPAddresses: []net.IP{net.ParseIP("127.0.0.1")},
		NodeIDs: []wire.NodeID{"foo"}, OutReq: "r", OutKey: "k", ipAddresses: []string{"127.0.0.1"},
	}
	if cfg.Action != MakeCertificate || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	sign, _ := First[CertSignReq](mustParse(t, strings.Fields(signReq+" notbefore=2030-01-01T00:00:00Z")...))
	if want := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC); !sign.NotBefore.Equal(want) || !sign.NotAfter.IsZero() || sign.Verified {
		t.Errorf("got %+v", sign)
	}
}

func TestHelpHasCertificates(t *testing.T) {
	var b strings.Builder
	if err := WriteHelp(&b, "receptor"); err != nil {
		t.Fatal(err)
	}
	last := -1
	for _, want := range []string{"--tls-server:", "name=<string>: Name for the profile, unique among servers (required)", "--tls-client:", "--tcp-listener:", "--work-command:", "--cert-init:", "bits=<int>", "--cert-signreq:"} {
		at := strings.Index(b.String(), want)
		if at <= last {
			t.Errorf("%q is missing or in the wrong place:\n%s", want, &b)
		}
		last = at
	}
}
