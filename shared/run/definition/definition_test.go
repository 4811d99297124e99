package definition

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

func TestTheIDDependsOnEverythingThatIsResolved(t *testing.T) {
	id := func(change func(*Definition)) string {
		d := Definition{Name: "n", Preset: "p", Seed: 1, Sources: []Source{{Name: "s", Digest: "d"}},
			Stages: map[string]json.RawMessage{"train": []byte(`{"steps":1}`)}}
		change(&d)
		id, err := d.ID()
		if err != nil || !event.ValidRun(id) {
			t.Fatalf("%s: %v", id, err)
		}
		return id
	}
	base := id(func(*Definition) {})
	if base != id(func(*Definition) {}) {
		t.Error("equal definitions have other ids")
	}
	for name, change := range map[string]func(*Definition){
		"seed": func(d *Definition) { d.Seed = 2 }, "source": func(d *Definition) { d.Sources[0].Digest = "e" },
		"parameter": func(d *Definition) { d.Stages["train"] = []byte(`{"steps":2}`) },
		"preset":    func(d *Definition) { d.Preset = "q" },
	} {
		if id(change) == base {
			t.Errorf("the %s does not change the id", name)
		}
	}
}

// begin keeps d as the definition of a run.
func begin(t *testing.T, store *artifact.Store, run string, d Definition) artifact.Ref {
	t.Helper()
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	w, err := store.Create("definition", "application/json", "definition.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	ref, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.New(run, "launcher", "", event.Part{}, event.RunStarted{Pipeline: d.Name, Definition: ref})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(store.Dir()).Write(e); err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestARunKeepsItsDefinition(t *testing.T) {
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	j := journal.Open(store.Dir())
	d := Definition{Name: "n", Preset: "p", Seed: 7, Sources: []Source{{Name: "s", Size: 3}},
		Stages: map[string]json.RawMessage{"train": []byte(`{"steps":1}`)}}
	if none, err := OfRun(j, store, "r"); err != nil || none != nil {
		t.Errorf("before: %v, %v", none, err)
	}
	if err := d.CheckRun(j, store, "r"); err != nil {
		t.Errorf("a new run: %v", err)
	}
	ref := begin(t, store, "r", d)
	got, err := OfRun(j, store, "r")
	if err != nil || got.Seed != 7 || got.Sources[0].Size != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := d.CheckRun(j, store, "r"); err != nil {
		t.Errorf("the same: %v", err)
	}
	other := d
	other.Stages = map[string]json.RawMessage{"train": []byte(`{"steps":2}`)}
	if err := other.CheckRun(j, store, "r"); err == nil || !strings.Contains(err.Error(), "choose another --run") {
		t.Errorf("another: %v", err)
	}
	path, err := store.Path(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again, err := artifact.Open(store.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OfRun(j, again, "r"); err == nil || !strings.Contains(err.Error(), "definition of run r") ||
		!strings.Contains(err.Error(), "pipeline run") {
		t.Errorf("without its file: %v", err)
	}
	if err := other.CheckRun(j, again, "r"); err == nil || !strings.Contains(err.Error(), "choose another --run") {
		t.Errorf("another, without its file: %v", err)
	}
	// The advice of the message mends the run.
	if err := d.CheckRun(j, again, "r"); err != nil {
		t.Errorf("the same, without its file: %v", err)
	}
	if mended, err := d.Store(j, again, "r"); err != nil || mended != ref {
		t.Errorf("%v, %v", mended, err)
	}
	if got, err := OfRun(j, again, "r"); err != nil || got.Seed != 7 {
		t.Errorf("mended: %+v, %v", got, err)
	}
}

// If the event run.started is damaged, the definition is found by its link. Without the link the run is refused: it is
// not taken for a run without a definition, for which stages use their defaults.
func TestADamagedEventDoesNotHideTheDefinition(t *testing.T) {
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	j := journal.Open(store.Dir()).Telling(func(error) {})
	d := Definition{Name: "n", Preset: "p", Seed: 7, Stages: map[string]json.RawMessage{}}
	begin(t, store, "r", d)
	events, err := filepath.Glob(filepath.Join(j.RunDir("r"), "events", "run.started", "*"))
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	if err := os.WriteFile(events[0], nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OfRun(j, store, "r"); err == nil || !strings.Contains(err.Error(), "definition of run r") {
		t.Errorf("without event and link: %v", err)
	}
	if _, err := d.Store(j, store, "r"); err != nil {
		t.Fatal(err)
	}
	if got, err := OfRun(j, store, "r"); err != nil || got.Seed != 7 {
		t.Errorf("by the link: %+v, %v", got, err)
	}
}
