package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/policy/access"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// write makes a file with text and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustParse(t *testing.T, args ...string) *Config {
	t.Helper()
	cfg, err := ParseArgs(args)
	if err != nil {
		t.Fatalf("ParseArgs(%q): %v", args, err)
	}
	return cfg
}

func mustLoad(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := LoadFile(write(t, "mesh.yml", text))
	if err != nil {
		t.Fatalf("loading\n%s: %v", text, err)
	}
	return cfg
}

// wantError checks the first line and that each of contains stands somewhere.
func wantError(t *testing.T, err error, first string, contains ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", first)
	}
	if !strings.HasPrefix(err.Error(), first) {
		t.Fatalf("got error %q, want it to begin with %q", err, first)
	}
	for _, c := range contains {
		if !strings.Contains(err.Error(), c) {
			t.Errorf("got error %q, want %q in it", err, c)
		}
	}
}

// one returns the only section of type T.
func one[T any](t *testing.T, cfg *Config) T {
	t.Helper()
	var got []T
	for _, s := range All[T](cfg) {
		got = append(got, s)
	}
	if len(got) != 1 {
		t.Fatalf("got %d sections of %T, want 1", len(got), *new(T))
	}
	return got[0]
}

// names returns the directives in order.
func names(cfg *Config) string {
	var list []string
	for _, d := range cfg.Directives {
		list = append(list, d.Name)
	}
	return strings.Join(list, " ")
}

func TestF001EntityGrammar(t *testing.T) {
	cfg := mustParse(t, "--tcp-listener", "port=2222", "bindaddr=127.0.0.1", "--local-only", "--node", "id=a=b")
	want := TCPListener{BindAddr: "127.0.0.1", Port: 2222, Cost: 1}
	if got := one[TCPListener](t, cfg); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := cfg.Node().ID; got != "a=b" {
		t.Errorf("a value is split at its first =: got ID %q, want a=b", got)
	}
	if got := names(cfg); got != "tcp-listener local-only node" {
		t.Errorf("got order %q", got)
	}
}

func TestF002OneOrTwoDashes(t *testing.T) {
	a, b := mustParse(t, "-node", "id=a"), mustParse(t, "--node", "id=a")
	if !reflect.DeepEqual(a.Directives, b.Directives) {
		t.Errorf("got %+v and %+v, want the same", a, b)
	}
}

func TestF003CaseInsensitiveNames(t *testing.T) {
	if got := mustParse(t, "--NODE", "ID=Aa").Node().ID; got != "Aa" {
		t.Errorf("got ID %q, want Aa", got)
	}
}

func TestF004BareValue(t *testing.T) {
	cfg := mustParse(t, "--tcp-listener", "2222", "--log-level", "Debug", "--node", "foo", "--tcp-peer", "h:1")
	if l := one[TCPListener](t, cfg); l.Port != 2222 {
		t.Errorf("got port %d, want 2222", l.Port)
	}
	if cfg.LogLevel() != LevelDebug || cfg.Node().ID != "foo" || one[TCPPeer](t, cfg).Address != "h:1" {
		t.Errorf("got %+v", cfg)
	}
	_, err := ParseArgs([]string{"--tcp-server", "2222"})
	wantError(t, err, "config error: command does not allow bare values", "remoteservice")
}

func TestF005LastValueWins(t *testing.T) {
	if l := one[TCPListener](t, mustParse(t, "--tcp-listener", "port=1", "3", "port=2")); l.Port != 2 {
		t.Errorf("got port %d, want 2", l.Port)
	}
}

func TestF006F007Lists(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want []wire.NodeID
	}{
		"absent":              {nil, nil},
		"repeated":            {[]string{"allowedpeers=a", "allowedpeers=b"}, []wire.NodeID{"a", "b"}},
		"json":                {[]string{`allowedpeers=["a","b"]`}, []wire.NodeID{"a", "b"}},
		"json replaces":       {[]string{"allowedpeers=x", `allowedpeers=["a"]`, "allowedpeers=b"}, []wire.NodeID{"a", "b"}},
		"empty json":          {[]string{"allowedpeers=[]"}, []wire.NodeID{}},
		"commas are not read": {[]string{"allowedpeers=a,b"}, []wire.NodeID{"a,b"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := one[TCPListener](t, mustParse(t, append([]string{"--tcp-listener", "1"}, tc.args...)...)).AllowedPeers
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %#v, want %#v", got, tc.want)
			}
		})
	}
}

func TestF008JSONMap(t *testing.T) {
	got := one[TCPListener](t, mustParse(t, "--tcp-listener", "1", `nodecost={"a":2,"b":0.5}`)).NodeCost
	if want := (map[wire.NodeID]float64{"a": 2, "b": 0.5}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestF009F010F013Actions(t *testing.T) {
	for _, tc := range []struct {
		args string
		want Action
	}{
		{"", ShowHelp},
		{"--help", ShowHelp}, {"-h", ShowHelp}, {"-H", ShowHelp}, {"--HELP", ShowHelp},
		{"--node id=a --help", ShowHelp},
		{"cert --help", ShowHelp}, {"cert -h", ShowHelp}, {"cert doctor --help", ShowHelp},
		{"--help --bogus", ShowHelp},
		{"--bash-completion --bogus", ShowCompletion},
		{"--version", ShowVersion},
		{"--node id=a", Run},
	} {
		if got := mustParse(t, strings.Fields(tc.args)...).Action; got != tc.want {
			t.Errorf("%q: got action %d, want %d", tc.args, got, tc.want)
		}
	}
	_, err := ParseArgs([]string{"--bogus", "--help"})
	wantError(t, err, "command error: unknown config type bogus")
	_, err = ParseArgs([]string{"-help"})
	wantError(t, err, "command error: unknown config type help (did you mean --help?)")
}

func TestF011HelpLayout(t *testing.T) {
	var b bytes.Buffer
	if err := WriteHelp(&b, "receptor"); err != nil {
		t.Fatal(err)
	}
	help := b.String()
	if !strings.HasPrefix(help, "Usage: receptor ") {
		t.Errorf("got help %.40q, want it to begin with Usage:", help)
	}
	last := 0
	for _, line := range []string{
		"   --help:", "   --config <filename>:", "   --bash-completion:",
		"   --node: Who this node is (required)\n      id=<string>: ",
		"(default: local host name)", "   --version:",
		"   --tcp-listener:", "      port=<int>: Local TCP port to listen on, 0 for any free one (required)\n",
		"cost=<float64>: Cost of a link, more than 0 (default: 1)", "nodecost=<JSON dict of string to float64>",
		"allowedpeers=<[]string (may be repeated)>", "   --control-service:", "(default: 0600)", "   --work-command:",
		"allowruntimeparams=<bool>: Let the submitter add parameters (default: false)",
	} {
		at := strings.Index(help[last:], line)
		if at < 0 {
			t.Fatalf("%q is not in the help, or not after what should precede it:\n%s", line, help)
		}
		last += at
	}
	if strings.Contains(help, "command-runner") {
		t.Error("the hidden directive is in the help")
	}
}

func TestF012BashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	var b bytes.Buffer
	if err := WriteCompletion(&b, "my-receptor"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "command-runner") {
		t.Error("the hidden directive is offered")
	}
	script := write(t, "completion", b.String())
	for _, tc := range []struct{ words, want, not string }{
		{"my-receptor --tcp-p", "--tcp-peer", "--tcp-listener"},
		{"my-receptor --", "--bash-completion", "port="},
		{"my-receptor --tcp-peer h:1 re", "redial=", "address="},
		{"my-receptor --TCP-listener p", "port=", "bindaddr="},
		{"my-receptor -c " + script[:len(script)-2], script, "port="},
	} {
		run := `. "$1"; shift; compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _my_receptor_completion; printf '%s\n' "${COMPREPLY[@]}"`
		out, err := exec.Command(bash, append([]string{"-c", run, "bash", script}, strings.Fields(tc.words)...)...).CombinedOutput()
		got := strings.Fields(string(out))
		if err != nil || !slices.Contains(got, tc.want) || slices.Contains(got, tc.not) {
			t.Errorf("%q: got %q (%v), want %q and not %q", tc.words, got, err, tc.want, tc.not)
		}
	}
}

func TestF014F015F018F019F057F059F060F061ArgumentErrors(t *testing.T) {
	for _, tc := range []struct{ row, args, want string }{
		{"F014", "--version --node id=a", "cannot specify any other options with version"},
		{"F015", "--node id=a --node id=b", `directive "node" is only allowed once (first given at argument 1)`},
		{"F015", "--local-only --local-only", `directive "local-only" is only allowed once`},
		{"F015", "--trace --trace", `directive "trace" is only allowed once`},
		{"F017", "--bogus", "command error: unknown config type bogus"},
		{"F017", "--tcp-per h:1", "command error: unknown config type tcp-per (did you mean tcp-peer?)"},
		{"F017", "--chek", "command error: unknown config type chek (did you mean --check?)"},
		{"F017", "--config=x.yml", "command error: unknown config type config=x.yml (write --config x.yml)"},
		{"F017", "--", "command error: unknown config type "},
		{"F018", "--tcp-peer adress=h:1", "config error: unknown field name adress (did you mean address?)"},
		{"F018", "--node firewallrule=[]", "config error: unknown field name firewallrule (did you mean firewallrules?)"},
		{"F018", "--trace x=1", "config error: unknown field name x (trace has no parameters)"},
		{"F019", "--tcp-peer redial=no", "error in --tcp-peer: required parameter missing: address"},
		{"F019", "-tcp-server port=1", "error in -tcp-server: required parameters missing: remotenode, remoteservice"},
		{"F020", "id=a --node", "parameter specified before command (a directive begins with two dashes; receptor --help lists them)"},
		{"F020", "local-only", "parameter specified before command (did you mean --local-only?)"},
		{"F020", "Check", "parameter specified before command (did you mean --check?)"},
		{"F020", "config_test.go", "parameter specified before command (a file is given as --config config_test.go)"},
		{"F020", "cert", "parameter specified before command (write cert doctor FILE, or cert mesh DIR node=ID)"},
		{"F034", "--tcp-listener abc", `error setting config value for field port: strconv.ParseInt: parsing "abc": invalid syntax`},
		{"F034", "--tcp-listener 1 Cost=abc", `error setting config value for field Cost: strconv.ParseFloat: parsing "abc": invalid syntax`},
		{"F034", "--tcp-peer h:1 redial=on", "error setting config value for field redial: could not parse on as boolean"},
		{"F034", "--tcp-listener 1 nodecost=3", "error setting config value for field nodecost: type error (expected map[string]float64)"},
		{"F034", `--tcp-listener 1 nodecost={"a":"3"}`, "error setting config value for field nodecost: invalid value 3: must be type float64"},
		{"F034", `--tcp-listener 1 nodecost={`, "error setting config value for field nodecost: invalid JSON dict"},
		{"F034", `--tcp-listener 1 allowedpeers=["a",3]`, "error setting config value for field allowedpeers: invalid value 3: must be type string"},
		{"1.1", "--config", "no file name given for --config"},
		{"1.1", "--config --node id=zz", "error loading config file: open id=zz: no such file or directory"},
		{"F042", "--log-level warn", "warn is not a valid log level name"},
		{"F042", "--log-level level=", " is not a valid log level name"},
		{"6", "--log-level info format=xml", "xml is not a valid log format"},
		{"6", "--log-level info areas=mesh", "mesh is not a part of the node and a level"},
		{"6", "--log-level info areas=sky=debug", "sky=debug is not a part of the node and a level"},
		{"6", "--log-level info areas=mesh=loud", "loud is not a valid log level name"},
		{"6", "--process draintimeout=soon", "draintimeout soon is not a duration"},
		{"F057", "--node id=LocalHost", `node ID "localhost" is reserved`},
		{"8", "--node id=a/b", `node ID "a/b" cannot be used`},
		{"8", "--node id=..", `node ID ".." cannot be used`},
		{"F059", "--node id=a maxidleconnectiontimeout=60", "failed to parse MaxIdleConnectionTimeout from configuration file -- valid examples include '1.5h', '30m', '30m10s'"},
		{"F059", "--node id=a maxidleconnectiontimeout=5s", "user defined maxIdleConnectionTimeout [5000000000] is less than the default default timeout [21000000000]"},
		{"F060", "--tcp-client service=abcdefghi address=h:1", "error listening on Receptor network: service name abcdefghi too long"},
		{"F060", "--control-service service=abcdefghi", "error listening on Receptor network: service name abcdefghi too long"},
		{"F061", "--tcp-client service=ping address=h:1", "error listening on Receptor network: service ping is already listening"},
		{"9.6", "--control-service --tcp-client service=control address=h:1", "error listening on Receptor network: service control is already listening (first given at argument 1)"},
		{"9.6", "--control-service service=", "no listeners specified"},
		{"F075", "--tcp-peer h:1 cost=0", "connection cost must be positive"},
		{"F075", "--tcp-peer h:1 cost=NaN", "connection cost must be positive"},
		{"F075", "--tcp-peer h:1 cost=1e300", "connection cost must be at most 1e+09"},
		{"F075", "--tcp-peer h:1 cost=Inf", "connection cost must be at most 1e+09"},
		{"F075", `--tcp-listener 1 nodecost={"a":-1}`, "connection cost must be positive for a"},
		{"F075", `--tcp-listener 1 nodecost={"a":1e10}`, "connection cost must be at most 1e+09 for a"},
		{"F114", "--tcp-peer h:1 tls=x", "unknown TLS config x"},
		{"F114", "--control-service tcplisten=1 tcptls=x", "unknown TLS config x"},
		{"9.8", "--tcp-peer host", "address host: missing port in address"},
		{"9.8", "--tcp-peer tcp://hub:2222", "address tcp://hub:2222: too many colons in address (write HOST:PORT, without a scheme)"},
		{"9.12", "--tcp-client service=a address=host", "address host: missing port in address"},
		{"9.17", "--work-command worktype=remote command=x", "work type remote already registered"},
		{"9.17", "--work-command worktype=a command=x --work-command worktype=a command=y", "work type a already registered (first given at argument 1)"},
		{"9.17", "--work-command worktype=a command=x verifysignature=true", "VerifySignature for work command 'a' is true, but the work verification public key is not specified"},
		{"F182", "--work-signing k tokenexpiration=soon", "failed to parse TokenExpiration -- valid examples include '1.5h', '30m', '30m10s'"},
		{"F182", "--work-signing k tokenexpiration=-5m", "signatures that expire after -5m0s are of no use"},
		{"9.20", "--work-signing k --work-signing k", `directive "work-signing" is only allowed once`},
		{"9.21", "--work-verification k --work-verification k", `directive "work-verification" is only allowed once`},
		{"F035", "--control-service filename=/s permissions=660", "permissions 660 are mode 01224"},
	} {
		t.Run(tc.row+" "+tc.args, func(t *testing.T) {
			_, err := ParseArgs(strings.Fields(tc.args))
			wantError(t, err, tc.want)
		})
	}
}

func TestF182SigningSections(t *testing.T) {
	cfg := mustParse(t, "--work-command", "worktype=w", "command=cat", "verifysignature=true", "--work-verification", "pub", "--work-signing", "key")
	if got, want := one[WorkSigning](t, cfg), (WorkSigning{PrivateKey: "key", TokenExpiration: 5 * time.Minute, expiration: "5m0s"}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := one[WorkVerification](t, cfg).PublicKey; got != "pub" {
		t.Errorf("got %q, want pub", got)
	}
	cfg = mustLoad(t, "- work-signing:\n    privatekey: key\n    tokenexpiration: 1h30m\n")
	if got := one[WorkSigning](t, cfg).TokenExpiration; got != 90*time.Minute {
		t.Errorf("got %v, want 1h30m", got)
	}
}

// What belongs to the Receptor written in Python is refused, never half understood.
func TestF245F246F247F248OlderReceptor(t *testing.T) {
	for _, tc := range []struct{ row, args, want string }{
		{"F245", "node --listen rnp://0.0.0.0:8888", "parameter specified before command"},
		{"F245", "--controller", "command error: unknown config type controller"},
		{"F246", "--tcp-peer rnp://hub:8888", "address rnp://hub:8888: too many colons in address"},
		{"F246", "--ws-peer rnps://hub:8888", "address rnps://hub:8888: malformed ws or wss URL"},
		{"F247", "--plugin:action name=x", "command error: unknown config type plugin:action"},
		{"F248", "--metrics port=8889", "command error: unknown config type metrics"},
	} {
		t.Run(tc.row+" "+tc.args, func(t *testing.T) {
			_, err := ParseArgs(strings.Fields(tc.args))
			wantError(t, err, tc.want)
		})
	}
	file := filepath.Join(t.TempDir(), "receptor.conf")
	if err := os.WriteFile(file, []byte("[default]\nnode_id=a\n[node]\nlisten=rnp://0.0.0.0:8888\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadFile(file)
	wantError(t, err, "error loading config file: could not get config type for command default: unknown config type default ("+file+":1:2)")
}

func TestEmptyArgument(t *testing.T) {
	_, err := ParseArgs([]string{"--node", ""})
	wantError(t, err, "empty argument at position 2")
}

func TestAllProblemsAtOnce(t *testing.T) {
	path := write(t, "mesh.yml", "- foo\n- tcp-peer:\n    adress: h:1\n- tcp-listener\n- tcp-per: h:1\n")
	_, err := ParseArgs([]string{"-c", path, "--bogus"})
	want := "error loading config file: could not get config type for command foo: unknown config type foo (" + path + ":1:3)\n" +
		"error loading config file: field adress not defined for command tcp-peer: unknown field name adress (" + path + ":3:5; did you mean address?)\n" +
		"error loading config file: error in tcp-listener: required parameter missing: port (" + path + ":4:3)\n" +
		"error loading config file: could not get config type for command tcp-per: unknown config type tcp-per (" + path + ":5:3; did you mean tcp-peer?)\n" +
		"command error: unknown config type bogus"
	if err == nil || err.Error() != want {
		t.Errorf("got error\n%v\nwant\n%s", err, want)
	}
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != 5 || e.Problems[1].Pos != (Position{File: path, Line: 3, Column: 5}) {
		t.Errorf("got %#v", err)
	}
}

// What cannot be read does not hide what is wrong with the rest.
func TestProblemsOfAllKindsAtOnce(t *testing.T) {
	_, err := LoadFile(write(t, "f.yml", "- node: localhost\n- bogus\n- tcp-peer: {address: h, cost: -1, tls: x}\n- tcp-listener: {port: x, cost: -1}\n"))
	wantError(t, err, `node ID "localhost" is reserved`, "error loading config file: could not get config type for command bogus",
		"address h: missing port in address", "connection cost must be positive", "unknown TLS config x", "setting field port")
	if n := strings.Count(err.Error(), "cost must be positive"); n != 2 {
		t.Errorf("got %d problems with costs, want also that of the directive whose port could not be read:\n%v", n, err)
	}
}

func TestF016F056ImplicitNode(t *testing.T) {
	host, err := os.Hostname()
	if err != nil || strings.HasPrefix(host, "localhost") {
		t.Skip("the host has no name")
	}
	cfg := mustParse(t, "--local-only")
	want := Node{ID: wire.NodeID(host), DataDir: "/tmp/receptor", MaxIdle: MinIdle, maxIdle: "21s"}
	if !reflect.DeepEqual(cfg.Node(), want) || names(cfg) != "local-only node" {
		t.Errorf("got %+v in %q, want %+v last", cfg.Node(), names(cfg), want)
	}
}

func TestNodeParameters(t *testing.T) {
	n := mustParse(t, "--node", "id=a", "datadir=", "maxidleconnectiontimeout=1.5h").Node()
	if n.MaxIdle != 90*time.Minute || n.DataDir != filepath.Join(os.TempDir(), "receptor") {
		t.Errorf("got %+v", n)
	}
}

func TestF022CommandLineEqualsFile(t *testing.T) {
	args := mustParse(t, "--node", "id=a", "--control-service", "filename=/s", "permissions=0660", "tcplisten=7000", "--tcp-listener", "port=0x1b0",
		"--tcp-peer", "h:1", "redial=No", "cost=2.5", "allowedpeers=b", "--tcp-server", "port=1", "remotenode=b", "remoteservice=s",
		"--tcp-client", "service=echo", "address=h:7", "--work-command", "worktype=w", "command=cat", "params=a b", "allowruntimeparams=yes", "--trace", "--local-only")
	file := mustLoad(t, `
- node: {id: a}
- control-service: {filename: /s, permissions: 0660, tcplisten: 7000}
- tcp-listener: {port: 0x1b0}
- tcp-peer: {address: "h:1", redial: no, cost: 2.5, allowedpeers: b}
- tcp-server: {port: 1, remotenode: b, remoteservice: s}
- tcp-client: {service: echo, address: "h:7"}
- work-command: {worktype: w, command: cat, params: a b, allowruntimeparams: yes}
- trace
- local-only`)
	for i := range args.Directives {
		args.Directives[i].Pos, file.Directives[i].Pos = Position{}, Position{}
	}
	if !reflect.DeepEqual(args.Directives, file.Directives) {
		t.Errorf("got from arguments\n%+v\nfrom the file\n%+v", args, file)
	}
	if got := one[ControlService](t, args); got.TCPListen != "127.0.0.1:7000" || got.Permissions != 0o660 || got.Service != "control" {
		t.Errorf("got %+v", got)
	}
}

// TestF023ConfigurationsByPipes: a shell gives the output of a program as a file that is a pipe, which can be read once. A pipe
// that holds nothing is no configuration, and a device without end none either.
func TestF023ConfigurationsByPipes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, _ = w.WriteString("- node: {id: piped}\n- local-only\n")
	_ = w.Close()
	path := fmt.Sprintf("/dev/fd/%d", r.Fd())
	cfg, err := LoadFile(path)
	if err != nil || cfg.Node().ID != "piped" {
		t.Fatalf("got %+v, %v", cfg, err)
	}
	for path, want := range map[string]string{path: path + ": it is a pipe that holds nothing", "/dev/zero": "read /dev/zero: too large"} {
		if _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestF023F024F025MergedInOrder(t *testing.T) {
	one, two := write(t, "1.yml", "- tcp-listener: '1'\n"), write(t, "2.yml", "- tcp-listener: '3'\n- node: hub\n")
	cfg := mustParse(t, "--local-only", "--config", one, "--tcp-listener", "2", "-C", two, "--trace")
	var ports []int
	for _, l := range All[TCPListener](cfg) {
		ports = append(ports, l.Port)
	}
	if got := names(cfg); got != "local-only tcp-listener tcp-listener tcp-listener node trace" || !slices.Equal(ports, []int{1, 2, 3}) {
		t.Errorf("got %q with ports %v", got, ports)
	}
	if got := cfg.Directives[3].Pos; got != (Position{File: two, Line: 1, Column: 3}) {
		t.Errorf("got position %v", got)
	}
	_, err := ParseArgs([]string{"--config", one, "port=4"})
	wantError(t, err, "parameter specified before command")
}

func TestSingletonOverFilesAndArguments(t *testing.T) {
	path := write(t, "mesh.yml", "- node: b\n")
	for _, args := range [][]string{{"--node", "a", "-c", path}, {"-c", path, "--node", "a"}, {"-c", path, "-c", write(t, "2.yml", "- node: c")}} {
		_, err := ParseArgs(args)
		wantError(t, err, `directive "node" is only allowed once`)
	}
	_, err := LoadFile(write(t, "two.yml", "- node: a\n\n- node: b\n"))
	wantError(t, err, "error loading config file: only one node directive is allowed (", "two.yml:3:3; first given at line 1)")
}

func TestF026F027F028F029Files(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"maps":           {"---\n- node:\n    id: a\n- tcp-peer: \"h:1\"\n- log-level: debug # loud\n...\n", "node tcp-peer log-level"},
		"strings":        {"- local-only\n- node: a\n- control-service\n", "local-only node control-service"},
		"null value":     {"- local-only:\n- node: a\n", "local-only node"},
		"flow":           {"[{node: {id: a}}, local-only, 'trace']", "node local-only trace"},
		"first document": {"- node: a\n---\n- bogus\n", "node"},
		"json":           {`[{"node":{"id":"a"}},{"tcp-listener":{"port":1}}]`, "node tcp-listener"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := mustLoad(t, tc.text)
			if got := names(cfg); got != tc.want || cfg.Node().ID != "a" {
				t.Errorf("got %q with ID %q, want %q with ID a", got, cfg.Node().ID, tc.want)
			}
		})
	}
	for _, empty := range []string{"", "---", "---\n...\n", "[]", "# nothing\n", "~"} {
		path := write(t, "empty.yml", empty)
		if got := names(mustParse(t, "-c", path, "--node", "a")); got != "node" {
			t.Errorf("%q: got %q, want nothing from the file", empty, got)
		}
	}
}

// TestNullsInLists: nothing stands where something has to.
func TestNullsInLists(t *testing.T) {
	_, err := LoadFile(write(t, "nulls.yml", "- tcp-peer: {address: 'h:1', allowedpeers: [a, null]}\n- null\n-\n- local-only\n"))
	wantError(t, err, "error loading config file: error setting field allowedpeers in command tcp-peer: invalid value null: must be type string (", "nulls.yml:1:44", "nulls.yml:2:3; an item is a directive's name", "nulls.yml:3:2; an item")
}

func TestF030AnchorsAliasesMerge(t *testing.T) {
	cfg := mustLoad(t, `
- node: &n {id: a}
- tcp-peer: &p
    address: &addr "h:1"
    cost: 2
- tcp-peer:
    <<: *p
    cost: 3
- tcp-client: {service: x, address: *addr}
- tcp-peer:
    <<: [{cost: 5}, *p]
`)
	var costs []float64
	for _, p := range All[TCPPeer](cfg) {
		if p.Address != "h:1" {
			t.Errorf("got address %q, want h:1", p.Address)
		}
		costs = append(costs, p.Cost)
	}
	if !slices.Equal(costs, []float64{2, 3, 5}) || one[TCPClient](t, cfg).Address != "h:1" {
		t.Errorf("got costs %v", costs)
	}
}

func TestF031CaseRules(t *testing.T) {
	if got := mustLoad(t, "- node: {ID: a, DataDir: /d}\n").Node(); got.ID != "a" || got.DataDir != "/d" {
		t.Errorf("got %+v", got)
	}
	_, err := LoadFile(write(t, "f", "- Node: {id: a}\n"))
	wantError(t, err, "error loading config file: could not get config type for command Node: unknown config type Node", "did you mean node?")
}

// columns are in all positions; one test checks them.
var columns = regexp.MustCompile(`(\.yml:\d+):\d+`)

func TestF032FileErrors(t *testing.T) {
	for _, tc := range []struct{ row, text, want string }{
		{"F032", "node:\n  id: a\n", "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!map into []interface {} (@:1"},
		{"F032", "hello", "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!str `hello` into []interface {}"},
		{"2", "- a: [", "yaml: "},
		{"2", "- node: a\n  trace: x\n", "config format invalid: item has multiple names (@:1"},
		{"2", "- 5\n", "unknown config file format (@:1"},
		{"2", "- [node]\n", "unknown config file format"},
		{"2", "- {}\n", "unknown config file format"},
		{"2", "-\n", "unknown config file format"},
		{"2", "- yes: x\n", "section key is not a string (@:1)"},
		{"F028", "- tcp-listener: 2222\n", `invalid config format for tcp-listener (@:1; write it in quotes: "2222")`},
		{"2", "- tcp-listener: [1]\n", "invalid config format for tcp-listener"},
		{"2", "- tcp-listener:\n    5: x\n", "invalid config format for tcp-listener (@:2"},
		{"F004", "- tcp-server: x\n", "could not get barevalue for command tcp-server: command does not allow bare values"},
		{"F033", "- foo\n", "could not get config type for command foo: unknown config type foo (@:1)"},
		{"F033", "- help\n", "could not get config type for command help: unknown config type help"},
		{"F033", "- node: {name: a}\n", "field name not defined for command node: unknown field name name"},
		{"F019", "- tcp-listener\n", "error in tcp-listener: required parameter missing: port (@:1)"},
		{"2", "- tcp-listener:\n    port:\n", "error setting field port in command tcp-listener: value cannot be nil (@:2"},
		{"bug-6", "- node:\n    id: a\n    ID: b\n", `key "ID" is already set at line 2 (@:3)`},
		{"bug-7", "- node: {id: yes}\n", `error setting field id in command node: yes without quotes is a boolean, not text (@:1; write it in quotes: "yes")`},
		{"bug-7", "- node: {id: 5.5}\n", "error setting field id in command node: 5.5 without quotes is a number, not text"},
		{"F034", "- node: {id: [a]}\n", "error setting field id in command node: type error (expected string)"},
		{"bug-7", "- tcp-listener: {port: 27520.7}\n", "error setting field port in command tcp-listener: 27520.7 is not a whole number"},
		{"F034", "- tcp-listener: {port: yes}\n", "error setting field port in command tcp-listener: type error (expected int)"},
		{"F034", "- tcp-listener: {port: abc}\n", `error setting field port in command tcp-listener: strconv.ParseInt: parsing "abc": invalid syntax`},
		{"F034", "- tcp-peer: {address: 'h:1', cost: yes}\n", "error setting field cost in command tcp-peer: type error (expected float64)"},
		{"F034", "- tcp-peer: {address: 'h:1', redial: 1}\n", "error setting field redial in command tcp-peer: type error (expected bool)"},
		{"bug-7", "- tcp-peer: {address: 'h:1', allowedpeers: [1]}\n", `error setting field allowedpeers in command tcp-peer: invalid value 1: must be type string (@:1; write it in quotes: "1")`},
		{"bug-7", "- tcp-peer: {address: 'h:1', allowedpeers: [y]}\n", "error setting field allowedpeers in command tcp-peer: invalid value y: must be type string"},
		{"bug-1", "- tcp-peer: {address: 'h:1', allowedpeers: [~, a]}\n", "error setting field allowedpeers in command tcp-peer: invalid value ~: must be type string"},
		{"F034", "- tcp-peer: {address: 'h:1', allowedpeers: {a: b}}\n", "error setting field allowedpeers in command tcp-peer: type error (expected []string)"},
		{"F034", "- tcp-listener: {port: 1, nodecost: {a: '3'}}\n", "error setting field nodecost in command tcp-listener: invalid value 3: must be type float64"},
		{"F034", "- tcp-listener: {port: 1, nodecost: {y: 3}}\n", "error setting field nodecost in command tcp-listener: invalid key y: must be type string"},
		{"F030", "- node: &a\n    <<: *a\n    id: x\n", "merge keys nest"},
		{"F030", "- node: {<<: x}\n", "map merge requires map or sequence of maps as the value"},
	} {
		t.Run(tc.row+" "+tc.text, func(t *testing.T) {
			path := write(t, "f.yml", tc.text)
			_, err := LoadFile(path)
			if err != nil {
				err = errors.New(columns.ReplaceAllString(err.Error(), "$1"))
			}
			if tc.row == "F030" {
				wantError(t, err, "error loading config file: ", tc.want)
				return
			}
			wantError(t, err, "error loading config file: "+strings.ReplaceAll(tc.want, "@", path))
		})
	}
	_, err := LoadFile("/does/not/exist.yml")
	wantError(t, err, "error loading config file: open /does/not/exist.yml: no such file or directory")
}

func TestSemanticErrorNamesLine(t *testing.T) {
	path := write(t, "f.yml", "- node: a\n- tcp-peer:\n    address: h:1\n    cost: -1\n")
	_, err := LoadFile(path)
	wantError(t, err, "connection cost must be positive ("+path+":4:5)")
}

func TestAliasBombIsRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("- node: &a0 {id: x}\n")
	for i := range 12 {
		twenty := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 20), ", ")
		fmt.Fprintf(&b, "- trace: &a%d {<<: [%s]}\n", i+1, twenty)
	}
	_, err := LoadFile(write(t, "bomb.yml", b.String()))
	wantError(t, err, "error loading config file: ", "values once aliases are followed")
}

func TestF034Conversions(t *testing.T) {
	for _, tc := range []struct {
		text string
		port int
	}{{"2222", 2222}, {"0x1b0", 432}, {"0o660", 432}, {"0660", 432}, {"0b1", 1}, {`"010"`, 8}, {`"0x10"`, 16}, {"2222.0", 2222}, {"1_000", 1000}, {"!!int 7", 7}} {
		l := one[TCPListener](t, mustLoad(t, "- node: a\n- tcp-listener: {port: "+tc.text+"}\n"))
		if l.Port != tc.port {
			t.Errorf("port %s: got %d, want %d", tc.text, l.Port, tc.port)
		}
	}
	for text, want := range map[string]bool{"yes": true, "on": true, "y": true, "'Yes'": true, "'1'": true, "off": false, "n": false, "No": false, "FALSE": false, "'F'": false} {
		p := one[TCPPeer](t, mustLoad(t, "- node: a\n- tcp-peer: {address: 'h:1', redial: "+text+"}\n"))
		if p.Redial != want {
			t.Errorf("redial %s: got %v, want %v", text, p.Redial, want)
		}
	}
	for text, want := range map[string]wire.NodeID{"0x10": "16", "'yes'": "yes", "!!str yes": "yes", "5": "5", "a b": "a b", "2001-01-01": "2001-01-01"} {
		if got := mustLoad(t, "- node: {id: "+text+"}\n").Node().ID; got != want {
			t.Errorf("id %s: got %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string][]wire.NodeID{"": nil, "[]": {}, "a": {"a"}, "[a, 'y']": {"a", "y"}} {
		p := one[TCPPeer](t, mustLoad(t, "- node: a\n- tcp-peer: {address: 'h:1', allowedpeers: "+text+"}\n"))
		if !reflect.DeepEqual(p.AllowedPeers, want) {
			t.Errorf("allowedpeers %s: got %#v, want %#v", text, p.AllowedPeers, want)
		}
	}
}

func TestF035OctalPermissions(t *testing.T) {
	for _, text := range []string{"0660", `"0660"`, "0o660", "432"} {
		if got := one[ControlService](t, mustLoad(t, "- node: a\n- control-service: {filename: /s, permissions: "+text+"}\n")).Permissions; got != 0o660 {
			t.Errorf("permissions %s: got %o, want 660", text, got)
		}
	}
}

func TestF038ExclusiveInFile(t *testing.T) {
	if got := mustLoad(t, "- version\n").Action; got != ShowVersion {
		t.Errorf("got action %d, want ShowVersion", got)
	}
	_, err := LoadFile(write(t, "f.yml", "- version\n- node: a\n"))
	wantError(t, err, "cannot specify any other options with version")
}

func TestSchema(t *testing.T) {
	seen := make(map[string]bool)
	for _, d := range schema() {
		if seen[d.name] || d.name != strings.ToLower(d.name) || d.help == "" {
			t.Errorf("directive %q: name taken or not lower case, or no help", d.name)
		}
		seen[d.name] = true
		if d.bare != "" && d.param(d.bare) == nil {
			t.Errorf("directive %q: bare parameter %q does not exist", d.name, d.bare)
		}
		for i, q := range d.params {
			if q.name != strings.ToLower(q.name) || q.help == "" || d.param(q.name) != &d.params[i] {
				t.Errorf("%s %s: name taken or not lower case, or no help", d.name, q.name)
			}
		}
	}
}

func TestControlServiceAllow(t *testing.T) {
	want := []access.Rule{
		{Commands: []string{"status", "work submit"}, UID: "0", Listener: "unix"},
		{Commands: []string{"*"}, CertNode: "/ctl.*/"},
	}
	file := mustLoad(t, `
- node: a
- control-service:
    filename: /s
    allow:
      - commands: [status, work submit]
        uid: 0
        listener: unix
      - {Commands: "*", certNode: /ctl.*/}
`)
	line := `[{"commands":"status,work submit","uid":"0","listener":"unix"},{"commands":["*"],"certnode":"/ctl.*/"}]`
	for name, got := range map[string][]access.Rule{
		"file": one[ControlService](t, file).Allow,
		"line": one[ControlService](t, mustParse(t, "--node", "a", "--control-service", "filename=/s", "allow="+line)).Allow,
	} {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	var b strings.Builder
	if err := WriteEffective(&b, file); err != nil {
		t.Fatal(err)
	}
	if again := one[ControlService](t, mustLoad(t, b.String())).Allow; !reflect.DeepEqual(again, want) {
		t.Errorf("written and read again: %+v\n%s", again, b.String())
	}
	if none := one[ControlService](t, mustLoad(t, "- node: a\n- control-service: {filename: /s}\n")).Allow; none != nil {
		t.Errorf("rules that nobody wrote: %v", none)
	}
	if empty := one[ControlService](t, mustLoad(t, "- node: a\n- control-service: {filename: /s, allow: []}\n")).Allow; empty == nil || len(empty) > 0 {
		t.Errorf("an empty list: %#v", empty)
	}
}

func TestControlServiceAllowErrors(t *testing.T) {
	_, err := ParseArgs([]string{"--node", "a", "--control-service", "filename=/s", `allow=[{"usr":1},{"commands":["x y"],"node":"/(/"}]`})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"error in rule 0: unknown key usr"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	for _, bad := range []string{"allow=x", "allow=[", "allow=[1]", `allow=[{"commands":[]}]`, `allow=[{"commands":"*","node":"/(/"}]`} {
		if _, err := ParseArgs([]string{"--node", "a", "--control-service", "filename=/s", bad}); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
