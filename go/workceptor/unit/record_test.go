package unit

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func golden(t testing.TB) map[string]string {
	names, err := filepath.Glob("testdata/status-files/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	all := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(name), ".json")] = string(text)
	}
	return all
}

// TestGolden reads the files of existing nodes and writes the same bytes.
func TestGolden(t *testing.T) {
	for name, text := range golden(t) {
		r, err := Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := string(r.Append(nil)); got != text {
			t.Errorf("%s: got %s, want %s", name, got, text)
		}
	}
}

func TestReplies(t *testing.T) {
	for name, want := range map[string]string{
		"local-running":             `{"Detail":"Running: PID 4603","ExtraData":{"Pid":4595,"Params":"-c \"echo start; exec sleep 60\""},"State":1,"StateName":"Running","StdoutSize":6,"WorkType":"sh"}`,
		"local-succeeded":           `{"Detail":"exit status 0","ExtraData":null,"State":2,"StateName":"Succeeded","StdoutSize":20,"WorkType":"upper"}`,
		"remote-not-started-secret": `{"Detail":"Starting Worker","ExtraData":{"RemoteNode":"ghost","RemoteWorkType":"cat","RemoteParams":{"plain":"p"},"RemoteUnitID":"","RemoteStarted":false,"LocalCancelled":false,"LocalReleased":false,"SignWork":false,"TLSClient":"cli","Expiration":"0001-01-01T00:00:00Z"},"State":0,"StateName":"Pending","StdoutSize":0,"WorkType":"remote"}`,
	} {
		r, err := Parse([]byte(golden(t)[name]))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(r.Status(true)); string(got) != want || err != nil {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	r, _ := Parse([]byte(golden(t)["kubernetes-succeeded"]))
	if got, _ := json.Marshal(r.Status(true)); strings.Contains(string(got), "sometoken") || !strings.Contains(string(got), `"KubeConfig":""`) {
		t.Errorf("secrets are shown: %s", got)
	}
	pod := &PodExtra{Image: "i", KubeConfig: "s1", KubePod: "s2", PodName: "p", PendingTimeout: "1m", ForeignConfig: true, Submission: "s3"}
	const shown = `"ExtraData":{"Image":"i","Command":"","Params":"","KubeNamespace":"","KubeConfig":"","KubePod":"","PodName":"p"},`
	if got, _ := json.Marshal(Record{Extra: pod}.Status(true)); !strings.Contains(string(got), shown) {
		t.Errorf("got %s, want %s", got, shown)
	}
	for _, partial := range []string{`{"KubeConfig":"sometoken"}`, `{"KubePod":"sometoken","Image":"i"}`} { // Of an older version, perhaps.
		r, err := Parse([]byte(`{"ExtraData":` + partial + `}`))
		if got, _ := json.Marshal(r.Status(true)); err != nil || strings.Contains(string(got), "sometoken") {
			t.Errorf("secrets are shown: %s, %v", got, err)
		}
	}
	if again, err := Parse(Record{Extra: pod}.Append(nil)); err != nil || string(again.Append(nil)) != string(Record{Extra: pod}.Append(nil)) {
		t.Errorf("got %+v, %v", again.Pod(), err)
	}
	if got, _ := json.Marshal(r.Status(false)); !strings.Contains(string(got), `"ExtraData":"Unknown WorkType"`) {
		t.Errorf("got %s", got)
	}
	if got, _ := json.Marshal(Status{State: 9}); !strings.Contains(string(got), `"StateName":"Unknown: 9"`) {
		t.Errorf("got %s", got)
	}
}

// TestF156SecretsAreWrittenWhileTheyAreNeeded: that is until the executor has the unit, or never will.
func TestF156SecretsAreWrittenWhileTheyAreNeeded(t *testing.T) {
	r, err := Parse([]byte(golden(t)["remote-not-started-secret"]))
	if err != nil {
		t.Fatal(err)
	}
	written := func(state State, started bool) string {
		r := r
		r.State = state
		r.EditRemote(func(x *RemoteExtra) { x.RemoteStarted = started })
		return string(r.Append(nil))
	}
	for text, want := range map[string]bool{
		written(Pending, false): true, written(Pending, true): false, written(Running, true): false,
		written(Failed, false): false, written(Canceled, false): false,
	} {
		if strings.Contains(text, "hunter2") != want || !strings.Contains(text, `"plain":"p"`) {
			t.Errorf("secrets wanted %v: got %s", want, text)
		}
	}
	if params := r.Remote().RemoteParams; len(params) == 1 {
		t.Errorf("the record itself has lost its secrets: %v", params)
	}
}

// TestForeignKeys: keys of later versions survive a rewrite, missing keys of earlier ones are zero.
func TestForeignKeys(t *testing.T) {
	const text = `{"Zeta":[1,2],"State":1,"Alpha":{"b":null},"ExtraData":{"Pid":7,"Since":"now"},"WorkType":"sh"}`
	r, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Apply(Event{Kind: Run, Detail: "<&>", Size: 5})
	r.SetPid(8)
	const want = `{"State":1,"Detail":"\u003c\u0026\u003e","StdoutSize":5,"WorkType":"sh","ExtraData":{"Pid":8,"Params":"","Since":"now"},"Alpha":{"b":null},"Zeta":[1,2]}` + "\n"
	if got := string(r.Append(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if shown, _ := json.Marshal(r.Status(true)); strings.Contains(string(shown), "Since") || strings.Contains(string(shown), "Zeta") {
		t.Errorf("keys that clients do not know are shown: %s", shown)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range golden(f) {
		f.Add([]byte(text))
		f.Add([]byte(text[:len(text)/2]))
	}
	f.Add([]byte(`{"State":1e3,"ExtraData":{"Pid":"x"}}`))
	f.Add([]byte(`{"ExtraData":{"RemoteNode":"b","RemoteParams":null,"Expiration":"9999-12-31T23:59:59Z"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		once := r.Append(nil)
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v: %s", err, once)
		}
		if twice := again.Append(nil); string(twice) != string(once) {
			t.Fatalf("not stable: %s became %s", once, twice)
		}
		for _, configured := range []bool{true, false} {
			reply, err := json.Marshal(r.Status(configured))
			if err != nil || !json.Valid(reply) {
				t.Fatalf("reply %s: %v", reply, err)
			}
		}
	})
}
