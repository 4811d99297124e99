package stage

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"unicode"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/results"
)

// task is a job before its key is known.
type task[P any, E event.Body] struct {
	run    string
	part   event.Part
	params P
	in     []E
	force  bool // begin it anew, whatever is recorded of it
	renew  bool // what it gives is the latest, also where it is recorded: a user asks for it

	input     string            // id of the event that is answered, of a set its first
	overrides map[string]string // how params, and those of the jobs before, differ from the run's own
	after     *int64            // time of the latest event that outputs follow, see date
}

// date gives an output a time later than those of the events that the task answers and of the outputs before it, and
// in a rerun than of all that the run has of its kind. The clocks of machines differ by hours, and jump; what is the
// latest of a run must not depend on them.
func (t *task[P, E]) date(e *event.Envelope) {
	if t.after == nil { // it answers files
		return
	}
	e.Time = max(e.Time, *t.after+1)
	*t.after = e.Time
}

// follow has the task's outputs follow all events of the kinds that a run has.
func (t *task[P, E]) follow(j journal.Journal, kinds []event.Body) error {
	if t.after == nil {
		t.after = new(int64)
	}
	for _, kind := range kinds {
		events, err := j.Announcements(t.run, kind.Kind())
		if err != nil {
			return err
		}
		t.followEvents(events)
	}
	return nil
}

func (t *task[P, E]) followEvents(events []event.Envelope) {
	for _, e := range events {
		*t.after = max(*t.after, e.Time)
	}
}

// answer makes the task one that answers events, with the parameters it has. The run's own parameters are the defaults
// and what its definition says of the stage; a run without a definition has none to differ from.
func (t *task[P, E]) answer(spec Spec[P, E], run *definition.Definition, events []event.Envelope) error {
	t.in, t.overrides = nil, map[string]string{}
	for _, e := range events {
		body, err := event.Into[E](e)
		if err != nil {
			return err
		}
		t.in = append(t.in, body)
		maps.Copy(t.overrides, e.Overrides)
	}
	if t.after == nil {
		t.after = new(int64)
	}
	t.followEvents(events)
	t.input = events[0].ID
	if spec.Gather == nil {
		t.part = events[0].Part
	}
	if run == nil {
		return nil
	}
	own := spec.Defaults
	if err := param.Decode(run.Stages[spec.Name], &own); err != nil {
		return fmt.Errorf("stage %s: %w", spec.Name, err)
	}
	if spec.Complete != nil {
		_ = spec.Complete(&own) // a file that they name may be gone since
	}
	for key, value := range param.Overrides(own, t.params) {
		t.overrides[spec.Name+"."+key] = value
	}
	return nil
}

// outputs is the folder where people look for what the task makes.
func (p *performer[P, E]) outputs(t task[P, E]) string {
	if p.folder != nil {
		return p.folder.Dir()
	}
	return filepath.Join(p.journal.RunDir(t.run), t.folder(p.spec.Name))
}

// folder is where a run's outputs of the stage lie: those of other parameters than the run's own in a folder of their
// own, named by what differs.
func (t task[P, E]) folder(stage string) string {
	if len(t.overrides) == 0 {
		return stage
	}
	label := results.Label(t.overrides)
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, label)
	const most = 100
	if name != label || len(name) > most || strings.HasPrefix(name, ".") {
		name = strings.ToValidUTF8("with-"+name[:min(len(name), most)], "") + "-" + digest.Short(digest.Bytes([]byte(label)))
	}
	return filepath.Join(stage, name)
}
