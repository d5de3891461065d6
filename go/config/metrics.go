package config

// MetricsListener serves metrics, health and, if asked for, a page for people over HTTP.
type MetricsListener struct {
	Port         int
	BindAddr     string // IPv6 without brackets.
	TLS          string // tls-server; empty: plain HTTP.
	Page         bool   // The page at "/".
	Pprof        bool   // The profiles at "/debug/pprof/".
	Username     string // With PasswordFile: basic authentication.
	PasswordFile string
	TokenFile    string // Bearer authentication.
}

// watchDirectives let others see how a node does.
func watchDirectives() []*directive {
	return []*directive{
		of(directive{name: "metrics-listener", help: "Serve metrics for Prometheus, health checks and a status page over HTTP", group: services},
			MetricsListener{BindAddr: "127.0.0.1"}, checkMetricsListener,
			number("port", "Local TCP port to listen on", func(m *MetricsListener) *int { return &m.Port }).need().names().between(0, 65535),
			text("bindaddr", "Local address to bind to", func(m *MetricsListener) *string { return &m.BindAddr }).names(),
			text("tls", "Name of the tls-server to use, for HTTPS", func(m *MetricsListener) *string { return &m.TLS }),
			boolean("page", "Show a page with the mesh, units, services and certificates", func(m *MetricsListener) *bool { return &m.Page }),
			boolean("pprof", "Offer profiles of the process", func(m *MetricsListener) *bool { return &m.Pprof }),
			text("username", "User name to ask for, together with passwordfile", func(m *MetricsListener) *string { return &m.Username }),
			text("passwordfile", "File that holds the password to ask for", func(m *MetricsListener) *string { return &m.PasswordFile }),
			text("tokenfile", "File that holds a bearer token to ask for", func(m *MetricsListener) *string { return &m.TokenFile }),
		),
	}
}

func checkMetricsListener(c *checker, m *MetricsListener) {
	c.port("tcp", m.Port)
	c.tlsServer("tls", m.TLS)
	if (m.Username == "") != (m.PasswordFile == "") {
		c.refuse("username", "give both or none", "username and passwordfile belong together")
	}
}
