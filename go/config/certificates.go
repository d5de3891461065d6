package config

import (
	"net"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// CertInit makes a certificate authority instead of running a node.
type CertInit struct {
	CommonName string
	Bits       int       // Of the RSA key; 0: the usual number.
	NotBefore  time.Time // Zero: now.
	NotAfter   time.Time // Zero: after the usual time.
	OutCert    string
	OutKey     string

	notBefore, notAfter string
}

// CertMakeReq makes a certificate request.
type CertMakeReq struct {
	CommonName  string
	Bits        int // Of the new key; 0 with InKey.
	DNSNames    []string
	IPAddresses []net.IP
	NodeIDs     []wire.NodeID
	InKey       string // The key to use, or
	OutKey      string // where a new one goes.
	OutReq      string

	ipAddresses []string
}

// CertSignReq signs a certificate request.
type CertSignReq struct {
	Req       string
	CACert    string
	CAKey     string
	NotBefore time.Time // Zero: now.
	NotAfter  time.Time // Zero: after the usual time.
	OutCert   string
	Verified  bool // Somebody has looked at the request: do not ask.

	notBefore, notAfter string
}

// CertDoctor says what is in a certificate, request or key, and whether it matches what it should.
type CertDoctor struct {
	File string
	Key  string      // File; empty: not compared, as all below.
	CA   string      // File.
	Node wire.NodeID // That it should be for.
	Host string      // That it should be for.
	JSON bool
}

// CertMesh makes the certificates of a small mesh.
type CertMesh struct {
	Dir     string
	Members []CertMember // At least one.
	Bits    int          // 0: the usual number.

	members []string
}

// CertMember is one node of it.
type CertMember struct {
	Node  wire.NodeID
	Hosts []string
}

// certificateDirectives run instead of a node.
func certificateDirectives() []*directive {
	return []*directive{certInitDirective(), certMakeReqDirective(), certSignReqDirective(), certDoctorDirective(), certMeshDirective()}
}

func certInitDirective() *directive {
	return of(directive{name: "cert-init", help: "Make a certificate authority", group: certificates, times: alone}, CertInit{}, checkCertInit,
		text("commonname", "Name of the authority", func(s *CertInit) *string { return &s.CommonName }).need(),
		number("bits", "Size of its RSA key, 0 for 2048", func(s *CertInit) *int { return &s.Bits }).need(),
		text("notbefore", "Start of its validity, as 2026-01-31T12:00:00Z", func(s *CertInit) *string { return &s.notBefore }).shown("now"),
		text("notafter", "End of its validity", func(s *CertInit) *string { return &s.notAfter }).shown("in 10 years"),
		text("outcert", "File to write its certificate to", func(s *CertInit) *string { return &s.OutCert }).need(),
		text("outkey", "File to write its private key to; one that holds a key is not overwritten", func(s *CertInit) *string { return &s.OutKey }).need(),
	)
}

func certMakeReqDirective() *directive {
	return of(directive{name: "cert-makereq", help: "Make a certificate request", group: certificates, times: alone}, CertMakeReq{}, checkCertMakeReq,
		text("commonname", "Common name of the certificate", func(s *CertMakeReq) *string { return &s.CommonName }).need(),
		number("bits", "Size of the new RSA key", func(s *CertMakeReq) *int { return &s.Bits }),
		list("dnsname", "DNS name for the certificate", func(s *CertMakeReq) *[]string { return &s.DNSNames }),
		list("ipaddress", "IP address for the certificate", func(s *CertMakeReq) *[]string { return &s.ipAddresses }),
		list("nodeid", "Node ID for the certificate", func(s *CertMakeReq) *[]wire.NodeID { return &s.NodeIDs }),
		text("outreq", "File to write the request to", func(s *CertMakeReq) *string { return &s.OutReq }).need(),
		text("inkey", "File with the private key to use", func(s *CertMakeReq) *string { return &s.InKey }),
		text("outkey", "File to write a new private key to; one that holds a key is not overwritten", func(s *CertMakeReq) *string { return &s.OutKey }),
	)
}

func certSignReqDirective() *directive {
	return of(directive{name: "cert-signreq", help: "Sign a certificate request", group: certificates, times: alone}, CertSignReq{}, checkCertSignReq,
		text("req", "File with the request", func(s *CertSignReq) *string { return &s.Req }).need(),
		text("cacert", "File with the authority's certificate", func(s *CertSignReq) *string { return &s.CACert }).need(),
		text("cakey", "File with the authority's private key", func(s *CertSignReq) *string { return &s.CAKey }).need(),
		text("notbefore", "Start of the certificate's validity, as 2026-01-31T12:00:00Z", func(s *CertSignReq) *string { return &s.notBefore }).shown("now"),
		text("notafter", "End of its validity", func(s *CertSignReq) *string { return &s.notAfter }).shown("in 1 year"),
		text("outcert", "File to write the certificate to", func(s *CertSignReq) *string { return &s.OutCert }).need(),
		boolean("verify", "The names have been verified: sign without asking", func(s *CertSignReq) *bool { return &s.Verified }),
	)
}

func certDoctorDirective() *directive {
	return of(directive{name: "cert-doctor", help: "Say what a certificate, request or key file is, and whether it is as it should be; also as: cert doctor FILE", group: certificates, times: alone, bare: "file"},
		CertDoctor{}, nil,
		text("file", "File with the certificate, request or key, PEM", func(s *CertDoctor) *string { return &s.File }).need(),
		text("key", "File with the private key that should belong to it", func(s *CertDoctor) *string { return &s.Key }),
		text("ca", "File with the CAs, one of which should have signed it", func(s *CertDoctor) *string { return &s.CA }),
		text("node", "Node ID it should be for", func(s *CertDoctor) *wire.NodeID { return &s.Node }),
		text("host", "Host name or address it should be for", func(s *CertDoctor) *string { return &s.Host }),
		boolean("json", "Print JSON", func(s *CertDoctor) *bool { return &s.JSON }),
	)
}

func certMeshDirective() *directive {
	return of(directive{name: "cert-mesh", help: "Make a CA and a certificate for each node of a small mesh, good for servers and clients; also as: cert mesh DIR node=ID", group: certificates, times: alone, bare: "dir"},
		CertMesh{}, checkCertMesh,
		text("dir", "Directory for the files; a CA that is there is used, so nodes can be added", func(s *CertMesh) *string { return &s.Dir }).need(),
		list("node", "A node as ID, or as ID=HOST,ADDRESS,... with the names under which others connect to it", func(s *CertMesh) *[]string { return &s.members }).need(),
		number("bits", "Size of the RSA keys, 0 for 2048", func(s *CertMesh) *int { return &s.Bits }),
	)
}

func checkCertMesh(c *checker, s *CertMesh) {
	c.output("dir", s.Dir)
	c.keyBits(s.Bits)
	seen := make(map[string]bool)
	for _, text := range s.members {
		id, hosts, _ := strings.Cut(text, "=")
		if id == "" || id == "ca" || seen[id] {
			c.refuse("node", "as in node=hub=hub.example,10.0.0.1", "node %q cannot be used: it has no ID, a reserved one, or one that came before", text)
			continue
		}
		seen[id] = true
		checkNodeID(c, wire.NodeID(id))
		m := CertMember{Node: wire.NodeID(id)}
		for host := range strings.SplitSeq(hosts, ",") {
			if host = strings.TrimSpace(host); host != "" {
				m.Hosts = append(m.Hosts, host)
			}
		}
		s.Members = append(s.Members, m)
	}
}

func checkCertInit(c *checker, s *CertInit) {
	c.commonName(s.CommonName)
	c.keyBits(s.Bits)
	s.NotBefore, s.NotAfter = c.validity(s.notBefore, s.notAfter)
	c.output("outcert", s.OutCert)
	c.output("outkey", s.OutKey)
	c.apart("outkey", s.OutKey, s.OutCert)
}

func checkCertMakeReq(c *checker, s *CertMakeReq) {
	c.commonName(s.CommonName)
	c.keyBits(s.Bits)
	switch {
	case s.InKey == "" && s.OutKey == "":
		c.refuse("", "inkey names the key to use, outkey the file for a new one", "must provide either InKey or OutKey")
	case s.InKey != "" && s.OutKey != "":
		c.refuse("outkey", "", "cannot use both InKey and OutKey")
	case s.InKey != "" && s.Bits != 0:
		c.refuse("bits", "", "cannot specify key bits when reading an already-existing key")
	case s.OutKey != "" && s.Bits == 0:
		c.refuse("bits", "as in bits=2048", "must specify key bits when creating a new key")
	}
	for _, text := range s.ipAddresses {
		ip := net.ParseIP(text)
		if ip == nil {
			c.refuse("ipaddress", "", "invalid IP address: %s", text)
		}
		s.IPAddresses = append(s.IPAddresses, ip)
	}
	c.output("outreq", s.OutReq)
	c.apart("outkey", s.OutKey, s.OutReq)
	c.apart("inkey", s.InKey, s.OutReq)
}

func checkCertSignReq(c *checker, s *CertSignReq) {
	s.NotBefore, s.NotAfter = c.validity(s.notBefore, s.notAfter)
	c.output("outcert", s.OutCert)
	c.apart("cacert", s.CACert, s.OutCert)
	c.apart("cakey", s.CAKey, s.OutCert)
}

func (c *checker) commonName(name string) {
	if name == "" {
		c.refuse("commonname", "", "must provide CommonName")
	}
}

// Sizes of RSA keys: the smallest that TLS libraries still accept, and one whose making still ends.
const minKeyBits, maxKeyBits = 1024, 16384

func (c *checker) keyBits(bits int) {
	switch {
	case bits == 0:
	case bits < minKeyBits:
		c.refuse("bits", "2048 or more is usual", "rsa: key too small: %d bits", bits)
	case bits > maxKeyBits:
		c.refuse("bits", "4096 is plenty", "rsa: key too large: %d bits", bits)
	}
}

// validity reads the dates of a certificate; zero stands for what was not given.
func (c *checker) validity(notBefore, notAfter string) (from, to time.Time) {
	from, to = c.date("notbefore", notBefore), c.date("notafter", notAfter)
	start := from
	if start.IsZero() {
		start = time.Now()
	}
	if !to.IsZero() && !to.After(start) {
		c.refuse("notafter", "", "the certificate would never be valid: notafter %s is not after %s",
			to.Format(time.RFC3339), start.Format(time.RFC3339))
	}
	return from, to
}

func (c *checker) date(param, text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		c.refuse(param, "as in 2026-01-31T12:00:00Z", "%s", err)
	}
	return t
}

func (c *checker) output(param, path string) {
	if path == "" {
		c.refuse(param, "", "%s must not be empty", param)
	}
}

// apart refuses to overwrite what is needed with what is made.
func (c *checker) apart(param, path, out string) {
	if path != "" && path == out {
		c.refuse(param, "give it a file of its own", "%s and the output are the same file: %s", param, path)
	}
}
