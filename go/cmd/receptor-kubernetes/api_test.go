package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// apiServer is an API server with one pod.
type apiServer struct {
	t       *testing.T
	url     string
	version string

	// What a test decides. ready is what becomes of the pod once it is watched, log what its logs bring: the first one, and so on.
	refuse  map[string]string // "METHOD resource" to the text of the refusal.
	ready   func(*corev1.Pod)
	repeat  int                   // How often each change of the pod is told again.
	attach  func(stdin io.Reader) // nil: it is refused.
	log     []func(w *logWriter)
	deleted chan struct{} // Closed when the pod is deleted.
	asked   chan struct{} // Closed when the pod is first asked for by its name, or deleted.
	noticed func(request string)

	mu       sync.Mutex
	requests []string
	body     map[string]any // Of the request that made the pod.
	pod      *corev1.Pod
	changes  chan struct{} // Closed, and replaced, when the pod changes.
	look     sync.Once     // The pod is asked for.
	logs     int
	watches  int
}

// logWriter is one answer to a request for a log.
type logWriter struct {
	http.ResponseWriter
	request *http.Request
}

func (w *logWriter) line(text string) {
	_, _ = io.WriteString(w.ResponseWriter, text)
	w.ResponseWriter.(http.Flusher).Flush()
}

// abort breaks the connection off.
func (w *logWriter) abort() { panic(http.ErrAbortHandler) }

func newAPIServer(t *testing.T) *apiServer {
	a := &apiServer{
		t: t, version: "v1.30.2", refuse: map[string]string{}, ready: running, noticed: func(string) {},
		deleted: make(chan struct{}), asked: make(chan struct{}), changes: make(chan struct{}),
	}
	mux := http.NewServeMux()
	const all, one = "/api/v1/namespaces/{ns}/pods", "/api/v1/namespaces/{ns}/pods/{name}"
	handle := func(method, path, resource string, f http.HandlerFunc) {
		mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
			request := method + " " + strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/")
			a.mu.Lock()
			a.requests = append(a.requests, request)
			a.mu.Unlock()
			a.noticed(request)
			if text := a.refuse[method+" "+resource]; text != "" {
				fail(w, http.StatusForbidden, metav1.StatusReasonForbidden, text)
				return
			}
			f(w, r)
		})
	}
	handle("GET", "/version", "version", func(w http.ResponseWriter, _ *http.Request) { answer(w, version.Info{GitVersion: a.version}) })
	handle("POST", all, "pods", a.create)
	handle("GET", all, "pods", a.list)
	handle("GET", one, "pod", a.get)
	handle("DELETE", one, "pod", a.remove)
	handle("GET", one+"/log", "log", a.readLog)
	handle("POST", one+"/attach", "attach", a.attachTo)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	a.url = server.URL
	return a
}

func (a *apiServer) kubeconfig() string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: {server: %q}
contexts:
- name: x
  context: {cluster: c, user: u, namespace: ctxns}
current-context: x
users:
- name: u
  user: {token: sometoken}
`, a.url)
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: text,
	})
}

func (a *apiServer) create(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	var pod corev1.Pod
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := json.Unmarshal(text, &pod); err != nil {
		a.t.Errorf("the pod is no JSON: %v: %q", err, text)
	}
	_ = json.Unmarshal(text, &a.body)
	pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	pod.Name, pod.Namespace, pod.ResourceVersion = pod.GenerateName+"abc12", r.PathValue("ns"), "10"
	pod.Status.Phase = corev1.PodPending
	a.pod = &pod
	answer(w, pod)
}

// change is what happens to the pod.
func (a *apiServer) change(f func(*corev1.Pod)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changeLocked(f)
}

func (a *apiServer) changeLocked(f func(*corev1.Pod)) {
	if a.pod != nil {
		next := a.pod.DeepCopy()
		f(next)
		a.pod = next
	}
	close(a.changes)
	a.changes = make(chan struct{})
}

func (a *apiServer) list(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("watch") == "true" {
		a.watch(w, r)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "10"}}
	if a.pod != nil && r.URL.Query().Get("fieldSelector") == "metadata.name="+a.pod.Name {
		list.Items = append(list.Items, *a.pod)
	}
	answer(w, list)
}

func (a *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.(http.Flusher).Flush()
	a.mu.Lock()
	a.watches++
	first := a.watches == 1
	a.mu.Unlock()
	if first {
		a.change(a.ready)
	}
	for {
		a.mu.Lock()
		pod, changes := a.pod, a.changes
		a.mu.Unlock()
		event := map[string]any{"type": "MODIFIED", "object": pod}
		if pod == nil {
			return
		}
		if pod.DeletionTimestamp != nil {
			event["type"] = "DELETED"
		}
		for range 1 + a.repeat {
			_ = json.NewEncoder(w).Encode(event)
		}
		w.(http.Flusher).Flush()
		select {
		case <-changes:
		case <-r.Context().Done():
			return
		}
	}
}

func (a *apiServer) get(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.look.Do(func() { close(a.asked) })
	if a.pod == nil || a.pod.Name != r.PathValue("name") {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("pods %q not found", r.PathValue("name")))
		return
	}
	answer(w, a.pod)
}

func (a *apiServer) remove(w http.ResponseWriter, r *http.Request) {
	a.get(w, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pod != nil {
		a.pod = nil
		a.changeLocked(nil)
		close(a.deleted)
	}
}

func (a *apiServer) readLog(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	n := a.logs
	a.logs++
	a.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain")
	w.(http.Flusher).Flush()
	if n < len(a.log) {
		a.log[n](&logWriter{w, r})
	}
}

// attachTo speaks SPDY, as API servers do.
func (a *apiServer) attachTo(w http.ResponseWriter, r *http.Request) {
	if a.attach == nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "attach refused by fake")
		return
	}
	if got := r.URL.RawQuery; got != "container=worker&stdin=true" {
		a.t.Errorf("attach asks for %q", got)
	}
	if _, err := httpstream.Handshake(r, w, []string{"v5.channel.k8s.io", "v4.channel.k8s.io"}); err != nil {
		a.t.Error(err)
		return
	}
	streams := make(chan httpstream.Stream, 4)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		a.t.Error("no SPDY")
		return
	}
	defer conn.Close()
	var failures, stdin httpstream.Stream
	for failures == nil || stdin == nil {
		switch s := <-streams; s.Headers().Get("streamType") {
		case "error":
			failures = s
		case "stdin":
			stdin = s
		}
	}
	a.attach(stdin)
	_ = json.NewEncoder(failures).Encode(metav1.Status{Status: metav1.StatusSuccess})
	failures.Close()
	<-conn.CloseChan()
}

func (a *apiServer) count(request string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(a.requests), func(r string) bool { return r != request }))
}

// What may become of a pod.

func running(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: worker, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
}

func exited(code int32, message string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodSucceeded
		pod.Status.Conditions = nil
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: worker, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Message: message}},
		}}
	}
}

func brokenDown(code int32, message string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		exited(code, message)(pod)
		pod.Status.Phase = corev1.PodFailed
	}
}

func waiting(reason string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: worker, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		}}
	}
}

// stamped is a line of a log with its time: so many seconds after an hour.
func stamped(second float64, text string) string {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(second * float64(time.Second)))
	return at.Format(time.RFC3339Nano) + " " + text
}
