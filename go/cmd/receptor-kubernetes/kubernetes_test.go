package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/rest"

	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestMain is the program if a node has started it: tests of whole nodes have this binary for their helper.
func TestMain(m *testing.M) {
	if _, _, _, err := pods.Parse(os.Args[1:]); err == nil {
		main()
		return
	}
	os.Exit(m.Run())
}

var settings = pods.Settings{WorkType: "Kube", Auth: pods.KubeConfig, Stream: pods.Logger}

// one is a unit on disk and the API server of its cluster.
type one struct {
	*apiServer
	dir      *store.Dir
	settings pods.Settings
	details  []string // Of the unit, at each request.
}

func newUnit(t *testing.T, a *apiServer, stdin string, edit func(*unit.PodExtra)) *one {
	t.Helper()
	root, err := store.Open(t.TempDir(), "kub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	x := &unit.PodExtra{Image: "img:1", Command: "sh -c", Params: "'echo hi'", KubeConfig: a.kubeconfig()}
	if edit != nil {
		edit(x)
	}
	_, dir, file, err := root.Create(unit.Record{WorkType: "Kube", Detail: unit.DetailConnecting, Extra: x}, func(unit.ID) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(file, stdin); err != nil {
		t.Fatal(err)
	}
	file.Close()
	u := &one{apiServer: a, dir: dir, settings: settings}
	var mu sync.Mutex
	a.noticed = func(request string) {
		mu.Lock()
		defer mu.Unlock()
		if rec, err := dir.Read(); err == nil {
			u.details = append(u.details, request+": "+rec.Detail)
		}
	}
	return u
}

func (u *one) run(ctx context.Context, verb pods.Verb) unit.Record {
	u.t.Helper()
	if err := run(ctx, u.settings.Arguments(verb, u.dir.Path())); err != nil {
		u.t.Fatal(err)
	}
	return u.record()
}

func (u *one) record() unit.Record {
	u.t.Helper()
	rec, err := u.dir.Read()
	if err != nil {
		u.t.Fatal(err)
	}
	return rec
}

// want checks how the unit has ended, and its output.
func (u *one) want(rec unit.Record, state unit.State, detail, output string) {
	u.t.Helper()
	got, err := os.ReadFile(u.dir.File(store.StdoutFile))
	if err != nil {
		u.t.Fatal(err)
	}
	if rec.State != state || rec.Detail != detail || string(got) != output || rec.StdoutSize != int64(len(output)) {
		u.t.Errorf("got %v %q, %d bytes: %q\nwant %v %q, %d bytes: %q", rec.State, rec.Detail, rec.StdoutSize, got, state, detail, len(output), output)
	}
	if rec.SHA256 == "" || rec.Finished.IsZero() {
		u.t.Errorf("the outcome lacks its sum or its time: %+v", rec)
	}
}

const hello = "hello from pod\nsecond line\n"

// helloLog ends the container.
func helloLog(a *apiServer) func(*logWriter) {
	return func(w *logWriter) {
		w.line(stamped(0, "hello from pod\n"))
		w.line(stamped(1, "second line\n"))
		a.change(exited(0, ""))
	}
}

func TestF163PodFromImage(t *testing.T) {
	a := newAPIServer(t)
	a.log = []func(*logWriter){helloLog(a)}
	u := newUnit(t, a, "", nil)
	rec := u.run(t.Context(), pods.Run)
	u.want(rec, unit.Succeeded, "Finished", hello)
	want := map[string]any{
		"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{"generateName": "kube-", "namespace": "ctxns"},
		"spec": map[string]any{"restartPolicy": "Never", "containers": []any{map[string]any{
			"name": "worker", "image": "img:1", "command": []any{"sh", "-c"}, "args": []any{"echo hi"}, "resources": map[string]any{},
			"stdin": true, "stdinOnce": true,
		}}},
		"status": map[string]any{},
	}
	if !reflect.DeepEqual(a.body, want) {
		t.Errorf("got %v\nwant %v", a.body, want)
	}
	if code, ok := rec.ExitCode(); !ok || code != 0 || rec.Started.IsZero() {
		t.Errorf("got exit code %d, %v, start %v", code, ok, rec.Started)
	}
	status, err := json.Marshal(rec.Status(true))
	if extra := `"ExtraData":{"Image":"img:1","Command":"sh -c","Params":"'echo hi'","KubeNamespace":"ctxns","KubeConfig":"","KubePod":"","PodName":"kube-abc12"}`; !strings.Contains(string(status), extra) {
		t.Errorf("got %s, %v", status, err)
	}
	for _, step := range []string{
		"POST ctxns/pods: Connecting to Kubernetes", "GET ctxns/pods: Pod created", "GET ctxns/pods/kube-abc12/log: Pod Running",
	} {
		if !strings.Contains(strings.Join(u.details, "\n"), step) {
			t.Errorf("%q is not among the steps %q", step, u.details)
		}
	}
	if a.pod == nil {
		t.Error("the pod was deleted before the unit is released")
	}
}

func TestF164PodFromDefinition(t *testing.T) {
	const definition = `apiVersion: v1
kind: Pod
metadata: {name: mypod, namespace: podns, labels: {a: b}}
spec:
  restartPolicy: Always
  serviceAccountName: sa
  containers:
  - {name: side, image: "side:1"}
  - {name: worker, image: "img:2", args: [one, two]}
`
	a := newAPIServer(t)
	a.log = []func(*logWriter){helloLog(a)}
	u := newUnit(t, a, "", func(x *unit.PodExtra) { x.Image, x.Command, x.Params, x.KubePod = "", "", "", definition })
	rec := u.run(t.Context(), pods.Run)
	u.want(rec, unit.Succeeded, "Finished", hello)
	want := map[string]any{
		"kind": "Pod", "apiVersion": "v1",
		"metadata": map[string]any{"generateName": "mypod-", "namespace": "podns", "labels": map[string]any{"a": "b"}},
		"spec": map[string]any{"restartPolicy": "Never", "serviceAccountName": "sa", "containers": []any{
			map[string]any{"name": "side", "image": "side:1", "resources": map[string]any{}},
			map[string]any{
				"name": "worker", "image": "img:2", "args": []any{"one", "two"}, "resources": map[string]any{}, "stdin": true, "stdinOnce": true,
			},
		}},
		"status": map[string]any{},
	}
	if !reflect.DeepEqual(a.body, want) {
		t.Errorf("got %v\nwant %v", a.body, want)
	}
	if x := rec.Pod(); x.KubeNamespace != "podns" || x.PodName != "mypod-abc12" || x.KubePod != "" {
		t.Errorf("got %s/%s, and the definition is kept: %q", x.KubeNamespace, x.PodName, x.KubePod)
	}
	for definition, why := range map[string]string{
		`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"x","image":"i"}]}}`: "at least one container must be named worker",
		"spec: [": "definition of the pod: ",
	} {
		a := newAPIServer(t)
		u := newUnit(t, a, "", func(x *unit.PodExtra) { x.KubePod = definition })
		if rec := u.run(t.Context(), pods.Run); rec.State != unit.Failed || !strings.HasPrefix(rec.Detail, "Error creating pod: "+why) || rec.Reason != unit.ReasonPod {
			t.Errorf("got %v %q, %q", rec.State, rec.Detail, rec.Reason)
		}
		if len(a.requests) != 0 {
			t.Errorf("the cluster was asked: %v", a.requests)
		}
	}
}

func TestF165WaysToTheCluster(t *testing.T) {
	a := newAPIServer(t)
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(a.kubeconfig()), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		auth, content, file, namespace string
		foreign                        bool
		want                           string // An error; empty: the namespace ctxns, or that of the unit.
	}{
		"content":               {auth: pods.KubeConfig, content: a.kubeconfig()},
		"usual place":           {auth: pods.KubeConfig, file: file},
		"namespace of the unit": {auth: pods.KubeConfig, file: file, namespace: "mine"},
		"nowhere":               {auth: pods.KubeConfig, file: filepath.Join(t.TempDir(), "absent"), want: "could not determine namespace"},
		"submitted":             {auth: pods.Runtime, content: a.kubeconfig(), foreign: true},
		"no YAML":               {auth: pods.Runtime, content: "[", want: "kubeconfig: "},
		"in no cluster":         {auth: pods.InCluster, want: "unable to load in-cluster configuration"},
		"runs a program": {
			auth: pods.Runtime, foreign: true, want: "programs are not run for it",
			content: "users: [{name: u, user: {exec: {command: id, apiVersion: client.authentication.k8s.io/v1}}}]",
		},
		"reads a token": {auth: pods.Runtime, foreign: true, content: "users: [{name: u, user: {tokenFile: /etc/shadow}}]", want: "files of the node are not read for it"},
		"reads a key":   {auth: pods.Runtime, foreign: true, content: "users: [{name: u, user: {client-key: /k}}]", want: "files of the node are not read for it"},
		"reads an authority": {
			auth: pods.Runtime, foreign: true, content: "clusters: [{name: c, cluster: {certificate-authority: /k}}]", want: "files of the node are not read for it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", tc.file)
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			c, err := connect(&unit.PodExtra{KubeConfig: tc.content, ForeignConfig: tc.foreign, KubeNamespace: tc.namespace}, pods.Settings{Auth: tc.auth})
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]string{true: "ctxns", false: tc.namespace}[tc.namespace == ""]; c.namespace != want || c.config.Host != a.url {
				t.Errorf("got namespace %q, host %q", c.namespace, c.config.Host)
			}
		})
	}
}

func TestF167StdinGoesToTheContainer(t *testing.T) {
	payload := strings.Repeat("all of this\n", 100_000)
	a := newAPIServer(t)
	got := make(chan string, 1)
	a.attach = func(stdin io.Reader) {
		text, err := io.ReadAll(stdin)
		if err != nil {
			t.Error(err)
		}
		got <- string(text)
	}
	a.log = []func(*logWriter){func(w *logWriter) {
		if text := <-got; text != payload {
			t.Errorf("the container got %d bytes, want %d", len(text), len(payload))
		}
		helloLog(a)(w)
	}}
	u := newUnit(t, a, payload, nil)
	u.want(u.run(t.Context(), pods.Run), unit.Succeeded, "Finished", hello)
	if !strings.Contains(strings.Join(u.details, "\n"), "attach: Sending stdin to pod") {
		t.Errorf("got %q", u.details)
	}
}

// A container that cannot be attached to fails the unit after five tries, unless it has ended without its payload.
func TestF167AttachIsRefused(t *testing.T) {
	a := newAPIServer(t)
	a.log = []func(*logWriter){func(w *logWriter) { <-w.request.Context().Done() }}
	u := newUnit(t, a, "abc", nil)
	u.want(u.run(t.Context(), pods.Run), unit.Failed, "Error streaming stdin to pod ctxns/kube-abc12. Error: unable to upgrade connection: attach refused by fake", "")
	if n := a.count("POST ctxns/pods/kube-abc12/attach"); n != tries {
		t.Errorf("it was tried %d times, want %d", n, tries)
	}
	a = newAPIServer(t)
	a.log = []func(*logWriter){helloLog(a)}
	u = newUnit(t, a, "abc", nil)
	u.want(u.run(t.Context(), pods.Run), unit.Succeeded, "Finished", hello)
}

func TestF167PodCallsBack(t *testing.T) {
	for name, tc := range map[string]struct {
		stdin  string
		pod    func(t *testing.T, a *apiServer, address string)
		state  unit.State
		detail string
		output string
	}{
		"speaks": {"some input", func(t *testing.T, _ *apiServer, address string) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			text, err := io.ReadAll(conn)
			if err != nil || string(text) != "some input" {
				t.Errorf("got %q, %v", text, err)
			}
			_, _ = io.WriteString(conn, "pod got it\nbye\n")
		}, unit.Succeeded, "Finished", "pod got it\nbye\n"},
		"ends": {"some input", func(_ *testing.T, a *apiServer, _ string) {
			<-a.asked // An end before that may be seen in place of the start.
			a.change(exited(1, ""))
		}, unit.Failed, "Error accepting: the pod has ended and has not connected to ", ""},
		"no input": {"", nil, unit.Failed, "Error opening stdin file: file is empty", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ownAddress(); err != nil {
				t.Skip(err)
			}
			a := newAPIServer(t)
			var done sync.WaitGroup
			a.ready = func(pod *corev1.Pod) {
				running(pod)
				env := pod.Spec.Containers[0].Env
				if len(env) != 2 || env[0].Name != "RECEPTOR_HOST" || env[1].Name != "RECEPTOR_PORT" {
					t.Errorf("got %v", env)
					return
				}
				done.Go(func() { tc.pod(t, a, net.JoinHostPort(env[0].Value, env[1].Value)) })
			}
			u := newUnit(t, a, tc.stdin, nil)
			u.settings.Stream = pods.TCP
			rec := u.run(t.Context(), pods.Run)
			done.Wait()
			if strings.HasSuffix(tc.detail, " ") && strings.HasPrefix(rec.Detail, tc.detail) {
				tc.detail = rec.Detail
			}
			u.want(rec, tc.state, tc.detail, tc.output)
		})
	}
}

// A pod that does not get ready fails the unit with what is known of it; what it has said is kept.
func TestF168PodsThatDoNotGetReady(t *testing.T) {
	refused := func(a *apiServer) { a.refuse["GET pods"] = "not for you" }
	const failed = "Error creating pod: "
	for name, tc := range map[string]struct {
		limit, stdin   string
		ready          func(*corev1.Pod)
		prepare        func(*apiServer)
		detail, output string
		deleted        bool
	}{
		"create refused": {detail: failed + "no room", prepare: func(a *apiServer) { a.refuse["POST pods"] = "no room" }},
		"exit code":      {ready: exited(2, "boom"), detail: failed + "container failed with exit code 2: boom"},
		"failed":         {ready: brokenDown(3, "bang"), detail: failed + "pod failed to start, exit code 3: bang", output: "last words\n", deleted: true},
		"image":          {prepare: func(a *apiServer) { a.repeat = pullTries }, ready: waiting("ImagePullBackOff"), detail: failed + "container failed to start, ImagePullBackOff", output: "last words\n", deleted: true},
		"pending":        {limit: "300ms", ready: waiting("ContainerCreating"), detail: failed + "timed out waiting for the condition, ContainerCreating", output: "last words\n", deleted: true},
		"unseen":         {limit: "300ms", prepare: refused, detail: failed + "did not return an event while watching pod for work unit "},
		"taken away":     {ready: func(pod *corev1.Pod) { pod.DeletionTimestamp = &pod.CreationTimestamp }, detail: failed + `pods "kube-abc12" not found`, output: "last words\n"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t)
			if tc.ready != nil {
				a.ready = tc.ready
			}
			if tc.prepare != nil {
				tc.prepare(a)
			}
			a.log = []func(*logWriter){func(w *logWriter) { w.line("last words\n") }}
			u := newUnit(t, a, "", func(x *unit.PodExtra) { x.PendingTimeout = tc.limit })
			rec := u.run(t.Context(), pods.Run)
			if strings.HasSuffix(tc.detail, " ") {
				tc.detail += filepath.Base(u.dir.Path())
			}
			u.want(rec, unit.Failed, tc.detail, tc.output)
			if rec.Reason != unit.ReasonPod && rec.Reason != unit.ReasonExit {
				t.Errorf("got reason %q", rec.Reason)
			}
			if deleted := a.count("DELETE ctxns/pods/kube-abc12") == 1; deleted != tc.deleted && name != "taken away" {
				t.Errorf("deleted: %v, want %v", deleted, tc.deleted)
			}
		})
	}
}

// A pod that ends well before it is ready has its output read, and misses its payload.
func TestF168PodEndsBeforeItIsReady(t *testing.T) {
	a := newAPIServer(t)
	a.ready = exited(0, "")
	a.log = []func(*logWriter){helloLog(a)}
	u := newUnit(t, a, "payload", nil)
	u.want(u.run(t.Context(), pods.Run), unit.Succeeded, "Finished", hello)
	if n := a.count("POST ctxns/pods/kube-abc12/attach"); n != 0 {
		t.Errorf("it was attached to %d times", n)
	}
}

// A log that breaks off is read on at the exact byte: in the middle of a line, between lines of one time, at a line without end.
func TestF170LogBreaksOff(t *testing.T) {
	first, second, third := stamped(0.5, "one\n"), stamped(1.25, "two\n"), stamped(1.25, "three\n")
	long := stamped(2, strings.Repeat("x", 200_000)+"\n")
	a := newAPIServer(t)
	since := make([]string, 5)
	part := func(n int, text string, after func(w *logWriter)) func(*logWriter) {
		return func(w *logWriter) {
			since[n] = w.request.URL.Query().Get("sinceTime")
			w.line(text)
			after(w)
		}
	}
	abort, end := (*logWriter).abort, func(*logWriter) {}
	a.log = []func(*logWriter){
		part(0, first+second, abort),
		part(1, second+third+long[:100_000], abort),
		part(2, second+third+long[:150_000], end), // Ends well, but the container has not ended.
		part(3, long+stamped(3, "no end"), func(*logWriter) { a.change(exited(7, "")) }),
		part(4, stamped(3, "no end, is there?"), end),
	}
	u := newUnit(t, a, "", nil)
	rec := u.run(t.Context(), pods.Run)
	u.want(rec, unit.Succeeded, "Finished", "one\ntwo\nthree\n"+strings.Repeat("x", 200_000)+"\nno end, is there?")
	if code, _ := rec.ExitCode(); code != 7 {
		t.Errorf("got exit code %d, want 7", code)
	}
	want := []string{"", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z", "2026-01-01T00:00:02Z", "2026-01-01T00:00:03Z"}
	if !reflect.DeepEqual(since, want) {
		t.Errorf("logs were asked for since %q, want %q", since, want)
	}
}

// A container is believed to have ended when its log has nothing new five times and the cluster does not say that it runs.
func TestF170LogEndsWithoutAWord(t *testing.T) {
	a := newAPIServer(t)
	a.ready = func(pod *corev1.Pod) {
		running(pod)
		pod.Status.ContainerStatuses = nil
	}
	a.log = []func(*logWriter){func(w *logWriter) { w.line(stamped(0, "all\n")) }}
	u := newUnit(t, a, "", nil)
	u.want(u.run(t.Context(), pods.Run), unit.Succeeded, "Finished", "all\n")
	if n := a.count("GET ctxns/pods/kube-abc12/log"); n != quietLogs+1 {
		t.Errorf("the log was read %d times, want %d", n, quietLogs+1)
	}
}

// A container that says nothing for long is not cut off by logs that end, well or not, as long as the cluster says that it runs.
func TestF170QuietContainers(t *testing.T) {
	a := newAPIServer(t)
	for i := range quietLogs + 2 {
		a.log = append(a.log, func(w *logWriter) {
			if i%2 == 1 {
				w.abort()
			}
		})
	}
	a.log = append(a.log, helloLog(a))
	u := newUnit(t, a, "", nil)
	u.want(u.run(t.Context(), pods.Run), unit.Succeeded, "Finished", hello)
	if n := a.count("GET ctxns/pods/kube-abc12/log"); n != quietLogs+4 { // Once more after the end.
		t.Errorf("the log was read %d times, want %d", n, quietLogs+4)
	}
}

// A cluster that says for ever that a container runs, whose logs end at once, is not believed for ever.
func TestF170ClaimsHaveALimit(t *testing.T) {
	defer func(limit time.Duration) { claimLimit = limit }(claimLimit)
	claimLimit = 0
	for name, tc := range map[string]struct {
		last          func(*logWriter)
		state         unit.State
		detail, wrote string
	}{
		"ends well": {func(*logWriter) {}, unit.Succeeded, "Finished", "all\n"},
		"breaks":    {(*logWriter).abort, unit.Failed, "Error with pod's stdout: unexpected EOF", "all\n"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t)
			a.log = []func(*logWriter){func(w *logWriter) { w.line(stamped(0, "all\n")) }}
			for range quietLogs {
				a.log = append(a.log, tc.last)
			}
			u := newUnit(t, a, "", nil)
			u.want(u.run(t.Context(), pods.Run), tc.state, tc.detail, tc.wrote)
		})
	}
}

func TestF170LogPauses(t *testing.T) {
	for quiet, want := range map[int]time.Duration{0: sendPause, quietLogs: sendPause, quietLogs + 1: 2 * sendPause, 1000: claimPause} {
		if got := logPause(quiet); got != want {
			t.Errorf("after %d logs with nothing new: %v, want %v", quiet, got, want)
		}
	}
}

func TestF170WhoReadsOn(t *testing.T) {
	for text, want := range map[string]bool{
		"1.23.13": false, "1.23.14": true, "1.24.7": false, "1.24.8": true, "1.25.3": false, "1.25.4": true, "1.22.99": false,
		"v1.26.0-alpha": true, "v1.31.2+k3s1": true, "2.0.0": true,
	} {
		if got := reconnects(version.MustParseGeneric(text)); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
	a := newAPIServer(t)
	a.version = "v1.24.0"
	a.log = []func(*logWriter){func(w *logWriter) {
		if w.request.URL.Query().Has("timestamps") {
			t.Error("the log is asked for with times")
		}
		w.line(hello)
	}}
	u := newUnit(t, a, "", nil)
	u.want(u.run(t.Context(), pods.Run), unit.Succeeded, "Finished", hello)
	for setting, want := range map[string]bool{"enabled": true, "auto": true, "disabled": false, "what": false} {
		if got := (&cluster{}).canReconnect(setting); got != want {
			t.Errorf("%s: got %v", setting, got)
		}
	}
}

func TestF171Limits(t *testing.T) {
	for _, tc := range []struct {
		settings pods.Settings
		qps      float32
		burst    int
	}{
		{pods.Settings{}, 100, 1000},
		{pods.Settings{QPS: "5"}, 5, 50},
		{pods.Settings{QPS: "5", Burst: "7"}, 5, 7},
		{pods.Settings{QPS: "many", Burst: "-1"}, 100, 1000},
	} {
		c := &cluster{config: &rest.Config{}}
		c.limit(tc.settings)
		if c.config.QPS != tc.qps || c.config.Burst != tc.burst || c.config.RateLimiter != nil {
			t.Errorf("%+v: got %v, %v", tc.settings, c.config.QPS, c.config.Burst)
		}
	}
	for name, accepts := range map[string]bool{"never": false, "always": true} {
		c := &cluster{config: &rest.Config{}}
		c.limit(pods.Settings{RateLimiter: name})
		if c.config.RateLimiter == nil || c.config.RateLimiter.TryAccept() != accepts {
			t.Errorf("%s: got %v", name, c.config.RateLimiter)
		}
	}
}

// The end of the program's time is that of the pod.
func TestStopDeletesThePod(t *testing.T) {
	for name, when := range map[string]func(a *apiServer, stop func()){
		"pending": func(a *apiServer, stop func()) { a.ready = func(*corev1.Pod) { stop() } },
		"running": func(a *apiServer, stop func()) {
			a.log = []func(*logWriter){func(w *logWriter) { w.line(stamped(0, "x\n")); stop(); <-w.request.Context().Done() }}
		},
		"sending": func(a *apiServer, stop func()) {
			a.attach = func(io.Reader) { stop(); <-a.deleted }
			a.log = []func(*logWriter){func(w *logWriter) { <-w.request.Context().Done() }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t)
			ctx, stop := context.WithCancel(t.Context())
			when(a, stop)
			u := newUnit(t, a, map[string]string{"sending": "payload"}[name], nil)
			rec := u.run(ctx, pods.Run)
			if rec.State != unit.Failed || rec.Detail != unit.DetailKilled || rec.Reason != unit.ReasonKilled {
				t.Errorf("got %v %q, %q", rec.State, rec.Detail, rec.Reason)
			}
			if a.pod != nil {
				t.Error("the pod is there")
			}
		})
	}
}

// A program that goes on with a unit finds the place in the log, also if its notes are older than the output, or there are none.
func TestResumeAtTheExactByte(t *testing.T) {
	all := stamped(0, "one\n") + stamped(1, "two\n") + stamped(1, "three\n") + stamped(2, "four\n")
	const written = "one\ntwo\nthr"
	for name, notes := range map[string]string{
		"exact": `{"Since":"2026-01-01T00:00:01Z","Lines":1,"Bytes":3,"Written":11}`,
		"older": `{"Since":"2026-01-01T00:00:00Z","Lines":1,"Bytes":0,"Written":4}`,
		"none":  "",
		"wrong": `{"Since":"2026-01-01T00:00:09Z","Lines":1,"Bytes":0,"Written":4000}`,
		"torn":  `{"Since":`,
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t)
			u := newUnit(t, a, "", nil)
			a.pod = &corev1.Pod{}
			a.pod.Name = "kube-abc12"
			exited(0, "")(a.pod)
			a.log = []func(*logWriter){func(w *logWriter) { w.line(all) }}
			if err := os.WriteFile(u.dir.File(store.StdoutFile), []byte(written), 0o600); err != nil {
				t.Fatal(err)
			}
			if notes != "" {
				if err := os.WriteFile(u.dir.File(placeFile), []byte(notes), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := u.dir.Update(false, func(rec *unit.Record) bool {
				rec.EditPod(func(x *unit.PodExtra) { x.PodName, x.KubeNamespace = "kube-abc12", "ctxns" })
				return rec.Apply(unit.Event{Kind: unit.Run, Detail: unit.DetailPodRunning, Size: 4})
			})
			if err != nil {
				t.Fatal(err)
			}
			u.want(u.run(t.Context(), pods.Resume), unit.Succeeded, "Finished", "one\ntwo\nthree\nfour\n")
		})
	}
}

func TestArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"got 0 arguments, want VERB UNITDIR SETTINGS": nil,
		`"walk": want run, resume or delete`:          {"walk", "/d", "{}"},
		"settings: ":                                  {"run", "/d", "{"},
		"no status file in ":                          {"run", filepath.Join(t.TempDir(), "absent"), "{}"},
	} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", args, err, want)
		}
	}
}
