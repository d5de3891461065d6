package control

import (
	"encoding/json"
	"testing"
)

func TestAsk(t *testing.T) {
	srv := newServer(Config{Node: &fakeNode{id: "alpha"}, Version: "1"}, nil)
	defer func() { _ = srv.Close() }()
	reply, err := srv.Ask(t.Context(), "status")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(reply)
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ NodeID string }
	if err := json.Unmarshal(data, &status); err != nil || status.NodeID != "alpha" {
		t.Errorf("%s, %v", data, err)
	}
	for _, line := range []string{"connect alpha control", "work submit localhost cat", "events", "reload"} {
		if _, err := srv.Ask(t.Context(), line); err != errNeedsConnection {
			t.Errorf("%s: %v", line, err)
		}
	}
}
