package main

import (
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// Each event of a stage counts once, and so does its answer, whichever comes first and however often both come.
func TestAnswersAreCountedOnce(t *testing.T) {
	tr := newTracker([]plannedStage{{Description: stage.Description{Name: "shout", Kind: "source.added"}}}, 0)
	want := func(what string, answered, total int) {
		t.Helper()
		if a, n := tr.stages["shout"].counts(); a != answered || n != total {
			t.Errorf("%s: %d of %d are answered, want %d of %d", what, a, n, answered, total)
		}
	}
	announced := func(body event.Body) event.Envelope {
		e, err := event.New("r", "test", "", event.Part{}, body)
		if err != nil {
			t.Fatal(err)
		}
		tr.observe(bus.Kept{Envelope: e})
		return e
	}
	answer := func(id, outcome string, at int64) {
		announced(event.JobFinished{Listener: "shout", Input: id, Outcome: outcome, At: at})
	}
	source := func(name string) string {
		return announced(event.SourceAdded{Name: name, Digest: digest.Bytes([]byte(name))}).ID
	}
	one := source("one")
	source("one")
	want("an event, twice", 0, 1)
	answer(one, event.Waiting, 1)
	answer(one, event.Done, 2)
	answer(one, event.Done, 3)
	want("its answers", 1, 1)
	two := digest.Bytes([]byte("an event that comes after its answer"))
	answer(two, event.Done, 4)
	want("an early answer", 2, 2)
	answer(source("three"), "", 5)
	want("an answer without an outcome", 2, 3)
}
