package stage

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
)

// The result of a job that is done again is the latest, even if an earlier attempt had the same result. A result of
// other parameters than the run's own says so, and so do the results that follow from it.
func TestAJobThatIsDoneAgainIsTheLatest(t *testing.T) {
	t.Parallel()
	type params struct {
		Sequences int `json:"sequences"`
	}
	found := 0 // what the job finds, on this machine or another
	spec := Spec[params, event.SourceAdded]{
		Name: "count", Version: "1", Defaults: params{Sequences: 9},
		Work: func(ctx context.Context, job *Job[params], in event.SourceAdded) error {
			return job.Emit(ctx, event.PackWritten{Step: found})
		},
	}
	p := newPerformer(t, spec)
	added := newEvent(t, "r", "launcher", event.SourceAdded{Name: "a"})
	own := &definition.Definition{Stages: map[string]json.RawMessage{"count": []byte(`{"sequences":5}`)}}
	do := func(find, sequences int, force, renew bool) {
		t.Helper()
		time.Sleep(2 * time.Millisecond) // events are dated to the millisecond
		found = find
		job := task[params, event.SourceAdded]{run: "r", params: params{sequences}, force: force, renew: renew}
		if err := job.answer(spec, own, []event.Envelope{added}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.perform(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
	latest := func(when string, step int, overrides string) {
		t.Helper()
		all, err := p.journal.Announcements("r", event.PackWritten{}.Kind())
		if err != nil {
			t.Fatal(err)
		}
		last := all[0]
		for _, e := range all {
			if e.Time >= last.Time {
				last = e
			}
		}
		body, err := event.Into[event.PackWritten](last)
		if err != nil || body.Step != step || last.Overrides["count.sequences"] != overrides || last.Input != added.ID {
			t.Errorf("%s the latest is step %d with %v, %v; want %d with %q", when, body.Step, last.Overrides, err, step,
				overrides)
		}
	}
	do(1, 5, false, true)
	latest("at first", 1, "")
	do(2, 5, true, true)
	latest("done again elsewhere", 2, "")
	do(1, 5, true, true)
	latest("done again here", 1, "")
	do(1, 7, false, true)
	latest("with other parameters", 1, "7")
	do(9, 5, false, false)
	latest("delivered once more", 1, "7")
	do(9, 5, false, true)
	latest("asked for, and recorded", 1, "")
	added.Overrides = map[string]string{"shout.mode": "work"}
	do(3, 5, true, true)
	all, err := p.journal.Read("r", event.PackWritten{}.Kind())
	if err != nil || len(all[0].Overrides) != 1 || all[0].Overrides["shout.mode"] != "work" {
		t.Errorf("what follows from other parameters is %+v, %v", all, err)
	}
}

// The folder of a result is named by the parameters that differ from the run's. Characters that no name can have are
// replaced.
func TestFoldersOfOtherParameters(t *testing.T) {
	t.Parallel()
	folder := func(value string) string {
		t.Helper()
		overrides := map[string]string{"look.mode": value}
		name, inside := strings.CutPrefix(task[testParams, event.SourceAdded]{overrides: overrides}.folder("look"), "look/")
		if !inside || !artifact.ValidName(name) || len(name) > 150 || !utf8.ValidString(name) {
			t.Errorf("%q is in the folder %q", value, name)
		}
		return name
	}
	if got := folder("fail"); got != "mode=fail" {
		t.Errorf("a short one is %q", got)
	}
	names := map[string]string{}
	for _, value := range []string{
		"fail", "../fail", ".._fail", "a\nb", "a_b", strings.Repeat("x", 300), strings.Repeat("x", 301),
		"a" + strings.Repeat("é", 150),
	} {
		name := folder(value)
		if other, taken := names[name]; taken {
			t.Errorf("%q and %q are both in %q", value, other, name)
		}
		names[name] = value
	}
	if got := (task[testParams, event.SourceAdded]{}).folder("look"); got != "look" {
		t.Errorf("the run's own results are in %q", got)
	}
}
