package lineage

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
)

// past is a data directory that is made by hand.
type past struct {
	t     *testing.T
	store *artifact.Store
	j     journal.Journal
}

func newPast(t *testing.T) past {
	t.Helper()
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return past{t, store, journal.Open(store.Dir())}
}

func (p past) put(kind, name string) artifact.Ref {
	p.t.Helper()
	ref, err := artifact.Put(p.store, kind, "", name, []byte(kind+name))
	if err != nil {
		p.t.Fatal(err)
	}
	return ref
}

func (p past) write(e event.Envelope, err error) event.Envelope {
	p.t.Helper()
	if err == nil {
		_, err = p.j.Write(e)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

// started begins a run without parameters.
func (p past) started(run string) {
	definition := p.put("definition", run+".json")
	p.write(event.New(run, "pipeline", "", event.Part{}, event.RunStarted{Pipeline: "p", Definition: definition}))
}

// did keeps the record of a job, and announces its output. An event of an older version does not say what it answers.
func (p past) did(run, stage, params string, answered []event.Envelope, part event.Part, body event.Body,
	old bool) event.Envelope {
	p.t.Helper()
	var inputs []string
	for _, e := range answered {
		inputs = append(inputs, inputsOf(e)...)
	}
	key, canonical, err := record.Key(stage, "1", struct {
		Params string `json:"params"`
	}{params}, inputs)
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := record.Open(record.Root(p.store), stage, key, canonical, inputs)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	raw, err := event.Marshal(body)
	if err == nil {
		_, err = r.Add(body.Kind(), raw)
	}
	if err == nil {
		err = r.Commit()
	}
	e, failed := event.Wrap(run, stage, key, part, body.Kind(), raw)
	if err != nil || failed != nil {
		p.t.Fatal(err, failed)
	}
	if !old {
		e.Input = answered[0].ID
	}
	return p.write(e, nil)
}

// trained is a run of two sources, a dataset and a checkpoint.
func (p past) trained(run string, old bool) artifact.Ref {
	p.started(run)
	var batches []event.Envelope
	for i, name := range []string{"a.txt", "b.txt"} {
		part := event.Part{Index: i, Count: 2}
		added := p.write(event.New(run, "pipeline", "", part, event.SourceAdded{Name: name, Path: "/" + name, Digest: name}))
		batches = append(batches, p.did(run, "tokenize", "", []event.Envelope{added}, part,
			event.TokensWritten{Source: name, Batch: p.put("tokens", name), Rows: 5, Documents: 4, Nulls: 1}, old))
	}
	sealed := p.did(run, "shard", "", batches, event.Part{},
		event.DatasetSealed{Manifest: p.put("manifest", "m.json"), Report: p.put("report", "dataset.md")}, old)
	model := p.put("checkpoint", "step.safetensors")
	p.did(run, "train", "", []event.Envelope{sealed}, event.Part{}, event.CheckpointSaved{Model: model,
		Manifest: p.put("manifest", "m.json")}, old)
	return model
}

// A checkpoint leads back to all sources, also where events are of an older version and do not say what they answer.
func TestBackToTheSources(t *testing.T) {
	for _, old := range []bool{false, true} {
		p := newPast(t)
		model := p.trained("r", old)
		h, err := Open(p.store.Dir())
		if err != nil {
			t.Fatal(err)
		}
		g, err := h.Of(model.Digest, "r")
		if err != nil {
			t.Fatal(err)
		}
		var stages, sources []string
		for _, j := range g.Jobs {
			stages = append(stages, j.Stage)
			if j.Problem != "" {
				t.Errorf("old events: %v: %s", old, j.Problem)
			}
			if j.Stage == "train" && (len(j.Artifacts) != 1 || g.artifact(j.Artifacts[0]).Name != "m.json") {
				t.Errorf("training read %v, want the manifest, and not the report that its event mentions as well", j.Artifacts)
			}
		}
		for _, s := range g.Sources {
			sources = append(sources, s.Name)
			if s.Read == nil || *s.Read != (Read{Rows: 5, Documents: 4, Nulls: 1}) {
				t.Errorf("source %s: %+v", s.Name, s.Read)
			}
			if s.Problem == "" {
				t.Errorf("the batch of %s is none, and no problem is told", s.Name)
			}
		}
		if !slices.Equal(stages, []string{"train", "shard", "tokenize", "tokenize"}) ||
			!slices.Equal(sources, []string{"a.txt", "b.txt"}) {
			t.Errorf("old events: %v: jobs of %v, sources %v", old, stages, sources)
		}
	}
}

// A job without a record that answered one part of a set came from that part.
func TestPartOfASetWithoutARecord(t *testing.T) {
	p := newPast(t)
	p.trained("r", false)
	batches, err := p.j.Read("r", event.TokensWritten{}.Kind())
	if err != nil || len(batches) != 2 {
		t.Fatalf("%d batches, %v", len(batches), err)
	}
	report := p.put("evaluation", "count.json")
	e, err := event.New("r", "count", strings.Repeat("c", 64), batches[1].Part, event.EvaluationWritten{Report: report})
	e.Input = batches[1].ID
	p.write(e, err)
	h, err := Open(p.store.Dir())
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Of(report.Digest, "r")
	if err != nil {
		t.Fatal(err)
	}
	if j := g.Jobs[0]; j.Stage != "count" || len(j.Artifacts) != 1 || !strings.Contains(j.Problem, "its record is gone") {
		t.Errorf("the job is %+v", j)
	}
}

// Where two runs share a job, the run that was asked about counts.
func TestTheRunThatWasAskedAbout(t *testing.T) {
	p := newPast(t)
	p.trained("first", false)
	model := p.trained("second", false)
	h, err := Open(p.store.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{"first", "second"} {
		g, err := h.Of(model.Digest, run)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range g.Jobs {
			if j.Run != run {
				t.Errorf("of run %s: the job of %s is in run %s", run, j.Stage, j.Run)
			}
		}
	}
}

func TestRows(t *testing.T) {
	for _, c := range []struct {
		rows []int64
		want string
		n    int64
	}{
		{[]int64{3}, "row 3", 1}, {[]int64{2, 0, 1}, "rows 0–2", 3}, {[]int64{0, 1, 3, 1, 7, 8}, "rows 0–1, 3, 7–8", 5},
		{[]int64{0, 2, 4, 6, 8}, "rows 0, 2, 4, 6, …", 5},
	} {
		if got := rowsOf("s", c.rows); got.String() != c.want || got.Count != c.n {
			t.Errorf("%v: %s, %d; want %s, %d", c.rows, got, got.Count, c.want, c.n)
		}
	}
}

// Of a dataset of many sources the tree draws the first ones, in any width.
func TestTreeOfManySources(t *testing.T) {
	dataset := Artifact{Digest: "d", Name: strings.Repeat("long-", 30), Job: "j", There: true}
	g := &Graph{Artifact: "d", Artifacts: []Artifact{dataset},
		Jobs: []Job{{Key: "j", Stage: "shard", Run: "r", Given: map[string]string{"about": "two words"}}}}
	for i := range 100 {
		sum := fmt.Sprintf("%064d", i)
		g.Artifacts = append(g.Artifacts, Artifact{Digest: sum, Name: fmt.Sprintf("batch %d", i)})
		g.Jobs[0].Artifacts = append(g.Jobs[0].Artifacts, sum)
	}
	for _, width := range []int{40, 60, 80} {
		var b bytes.Buffer
		if err := g.WriteTree(&b, width); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := len([]rune(line)) - 1; n > width {
				t.Errorf("width %d: %d columns: %s", width, n, line)
			}
		}
		for _, want := range []string{"batch 11 ", "and 88 more", "made by no job", "gone", `about="two words"`} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("width %d: no %q in\n%s", width, want, b.String())
			}
		}
		if strings.Contains(b.String(), "batch 12 ") {
			t.Errorf("width %d: more than twelve inputs:\n%s", width, b.String())
		}
	}
}

// A job that is repeated by a later program may say more than it did: fields are added to events.
func TestAnEventThatSaysMore(t *testing.T) {
	body := func(v any) []byte {
		b, err := event.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	was := body(map[string]any{"step": 1})
	for want, now := range map[bool][]map[string]any{
		true:  {{"step": 1}, {"step": 1, "previous": "x"}},
		false: {{"step": 2}, {"previous": "x"}, {}, nil},
	} {
		for _, fields := range now {
			if got := saysAsMuch(body(fields), was); got != want {
				t.Errorf("%v says as much as step 1: %v", fields, got)
			}
		}
	}
}
