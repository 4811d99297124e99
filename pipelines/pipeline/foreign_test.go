package main

import (
	"strings"
	"testing"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The launcher uses the server that NATS_URL names, and keeps what others say there in the run's journal.
func TestEventsOfStrangers(t *testing.T) {
	server, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	b, err := bus.Connect(t.Context(), server.Address(), "stranger")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	w := newWorld(t)
	w.env = server.Address().Environ()
	cmd := w.command("pipeline", tiny("--run", "r")...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begun := func() bool {
		events, _, err := b.History(t.Context(), "r", event.RunStarted{}.Kind(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(events) > 0
	}
	for deadline := time.Now().Add(time.Minute); !begun(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the run never began")
		}
	}
	raw, err := event.Marshal(map[string]any{"colour": "red"})
	if err != nil {
		t.Fatal(err)
	}
	strange, err := event.Wrap("r", "stranger", "", event.Part{}, "colour.seen", raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), strange); err != nil {
		t.Fatal(err)
	}
	if status := w.status(cmd.Wait()); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	kept, err := journal.Open(w.data).Read("r", "colour.seen")
	if err != nil || len(kept) != 1 || kept[0].ID != strange.ID {
		t.Errorf("%+v, %v", kept, err)
	}
}
