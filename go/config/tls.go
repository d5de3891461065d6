package config

// TLSServer is a named profile for receiving clients under TLS.
type TLSServer struct {
	Name                   string
	Cert                   string // File with the certificate chain, PEM.
	Key                    string // File with the private key, PEM.
	RequireClientCert      bool
	ClientCAs              string // File; empty: the trust of the operating system.
	PinnedClientCert       []string
	SkipReceptorNamesCheck bool
	MinTLS13               bool
}

// TLSClient is a named profile for reaching servers under TLS.
type TLSClient struct {
	Name                   string
	Cert                   string // As in TLSServer; empty together with Key: no certificate.
	Key                    string
	RootCAs                string // File; empty: the trust of the operating system.
	InsecureSkipVerify     bool
	PinnedServerCert       []string
	SkipReceptorNamesCheck bool
	MinTLS13               bool
}

// tlsDirectives are the TLS profiles.
func tlsDirectives() []*directive { return []*directive{tlsServerDirective(), tlsClientDirective()} }

func tlsServerDirective() *directive {
	return of(directive{name: "tls-server", help: "Define how to receive clients under TLS", group: resources}, TLSServer{}, checkTLSServer,
		text("name", "Name for the profile, unique among servers", func(s *TLSServer) *string { return &s.Name }).need().names(),
		text("cert", "File with the certificate and those that lead to its CA, PEM", func(s *TLSServer) *string { return &s.Cert }).need(),
		text("key", "File with the private key, PEM", func(s *TLSServer) *string { return &s.Key }).need(),
		boolean("requireclientcert", "Clients must show a certificate", func(s *TLSServer) *bool { return &s.RequireClientCert }),
		text("clientcas", "File with the CAs of clients, PEM", func(s *TLSServer) *string { return &s.ClientCAs }).shown("those of the operating system"),
		list("pinnedclientcert", "SHA-256 or SHA-512 fingerprint of a client's certificate", func(s *TLSServer) *[]string { return &s.PinnedClientCert }),
		boolean("skipreceptornamescheck", "The certificate need not carry this node's ID", func(s *TLSServer) *bool { return &s.SkipReceptorNamesCheck }),
		boolean("mintls13", "Accept TLS 1.3 only", func(s *TLSServer) *bool { return &s.MinTLS13 }),
	)
}

func tlsClientDirective() *directive {
	return of(directive{name: "tls-client", help: "Define how to reach servers under TLS", group: resources}, TLSClient{}, checkTLSClient,
		text("name", "Name for the profile, unique among clients", func(s *TLSClient) *string { return &s.Name }).need().names(),
		text("cert", "File with the certificate and those that lead to its CA, PEM; empty for none", func(s *TLSClient) *string { return &s.Cert }).need(),
		text("key", "File with the private key, PEM; empty for none", func(s *TLSClient) *string { return &s.Key }).need(),
		text("rootcas", "File with the CAs of servers, PEM", func(s *TLSClient) *string { return &s.RootCAs }).shown("those of the operating system"),
		boolean("insecureskipverify", "Accept any certificate, pins excepted", func(s *TLSClient) *bool { return &s.InsecureSkipVerify }),
		list("pinnedservercert", "SHA-256 or SHA-512 fingerprint of a server's certificate", func(s *TLSClient) *[]string { return &s.PinnedServerCert }),
		boolean("skipreceptornamescheck", "The certificate need not carry this node's ID", func(s *TLSClient) *bool { return &s.SkipReceptorNamesCheck }),
		boolean("mintls13", "Accept TLS 1.3 only", func(s *TLSClient) *bool { return &s.MinTLS13 }),
	)
}

// profiles are the names of the TLS profiles of a configuration. They may be used before they are defined.
type profiles struct{ servers, clients map[string]Position }

// defined collects the names from all directives.
func defined(p *parser) profiles {
	names := profiles{make(map[string]Position), make(map[string]Position)}
	for _, e := range p.entries {
		switch s := e.section.(type) {
		case *TLSServer:
			p.define(names.servers, e, s.Name)
		case *TLSClient:
			p.define(names.clients, e, s.Name)
		}
	}
	return names
}

func (p *parser) define(names map[string]Position, e *entry, name string) {
	if first, taken := names[name]; taken && name != "" {
		p.problem(e.given["name"], givenAt(first), "%s %s is defined more than once", e.spec.name, name)
		return
	}
	names[name] = e.given["name"]
}

// tlsServer looks up the name of a tls-server that a parameter gives, if it does.
func (c *checker) tlsServer(param, name string) {
	c.profile(param, name, "tls-server", c.profiles.servers, c.profiles.clients)
}

// tlsClient is the like for a tls-client.
func (c *checker) tlsClient(param, name string) {
	c.profile(param, name, "tls-client", c.profiles.clients, c.profiles.servers)
}

func (c *checker) profile(param, name, kind string, names, others map[string]Position) {
	if _, ok := names[name]; ok || name == "" {
		return
	}
	hint := "define it with " + kind
	if _, ok := others[name]; ok {
		hint = "that name belongs to another kind of profile, this parameter needs a " + kind
	}
	c.refuse(param, hint, "unknown TLS config %s", name)
}

func checkTLSServer(c *checker, s *TLSServer) {
	if s.Name == "" {
		c.refuse("name", "", "must provide a name")
	}
}

func checkTLSClient(c *checker, s *TLSClient) {
	if s.Name == "" {
		c.refuse("name", "", "must provide a name")
	}
	if (s.Cert == "") != (s.Key == "") {
		c.refuse("cert", "", "cert and key must both be supplied or neither")
	}
}
