package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

// performer does jobs of one stage, wherever they come from.
type performer[P any, E event.Body] struct {
	spec      Spec[P, E]
	space     artifact.Space
	journal   journal.Journal // for links and logs; unused when folder is set
	folder    *artifact.Folder
	records   string // where job records are kept
	announcer *bus.Announcer
	host      Host
	log       *slog.Logger
	deadline  time.Duration // 0: none
	grace     time.Duration // after the deadline
	attempts  int           // how often a job is begun without getting anywhere; 0: as often as the user asks
	report    func(run, key string) func(Progress)
}

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

// result says what came of a task.
type result struct {
	key     string
	outputs []record.Output
	cached  bool
}

// performWhenFree is perform that waits while another process is at the job.
func (p *performer[P, E]) performWhenFree(ctx context.Context, t task[P, E]) (result, error) {
	for said := false; ; said = true {
		res, err := p.perform(ctx, t)
		if !errors.Is(err, record.ErrBusy) {
			return res, err
		}
		if !said {
			p.log.Info("another process works on this job: waiting for it", "job", digest.Short(res.key))
		}
		select {
		case <-ctx.Done():
			return res, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// perform does the job or finds that it is done, and announces its outputs.
// The error is record.ErrBusy when another process is at it.
func (p *performer[P, E]) perform(ctx context.Context, t task[P, E]) (result, error) {
	var inputs []string
	for _, in := range t.in {
		inputs = append(inputs, in.Inputs()...)
	}
	key, canonical, err := record.Key(p.spec.Name, p.spec.Version, t.params, inputs)
	if err != nil {
		return result{}, Permanent(err)
	}
	r, err := record.Open(p.records, p.spec.Name, key, canonical, inputs)
	if err != nil {
		return result{key: key}, err
	}
	defer r.Close()
	if p.folder != nil {
		p.folder.ReplaceAll(t.force)
		for _, ref := range r.Own() {
			if p.folder.Holds(ref) {
				p.folder.Replace(ref.Name)
			}
		}
	}
	if err := p.mend(t, r); err != nil {
		return result{key: key}, err
	}
	if p.folder != nil && !t.force && len(r.Outputs) == 0 {
		if err := p.checkUsed(r); err != nil {
			return result{key: key}, err
		}
	}
	for _, out := range r.Outputs { // of a finished job, or of its earlier attempts
		if err := p.announce(ctx, t, r, out, t.renew); err != nil {
			return result{key: key}, err
		}
	}
	cached := r.Complete()
	if !cached {
		if err := p.attempt(ctx, t, r); err != nil {
			return result{key: key}, err
		}
	}
	return result{key: key, outputs: r.Outputs, cached: cached}, nil
}

// mend forgets what is recorded of a job and cannot be its answer: all of it where the user wants the job done anew or
// where a finished job's artifact is no longer there, otherwise what comes after the last sound output.
func (p *performer[P, E]) mend(t task[P, E], r *record.Record) error {
	if t.force {
		return r.Reset()
	}
	sound, cause := p.soundOutputs(r)
	if sound == len(r.Outputs) {
		return nil
	}
	if r.Complete() || sound == 0 {
		p.log.Warn("an output is gone or damaged, and the job is done again", "run", t.run, "error", cause)
		return r.Reset()
	}
	p.log.Warn(fmt.Sprintf("an output is gone or damaged: the job goes back to the %s before", r.Outputs[sound-1].Kind), "run", t.run, "error", cause)
	return r.Retract(sound)
}

// soundOutputs counts the outputs up to the first whose artifacts are not there. The last output is what an unfinished job
// goes on from: its bytes are checked.
func (p *performer[P, E]) soundOutputs(r *record.Record) (n int, cause error) {
	for _, out := range r.Outputs {
		for _, ref := range r.Made(out) {
			if !p.has(r, ref) {
				cause = fmt.Errorf("%s is gone", ref)
			}
		}
		if cause != nil {
			break
		}
		n++
	}
	for ; n > 0 && !r.Complete(); n-- {
		var damage error
		for _, ref := range r.Made(r.Outputs[n-1]) {
			if _, err := p.space.Path(ref); err != nil {
				damage = err
			}
		}
		if damage == nil {
			break
		}
		cause = damage
	}
	return n, cause
}

// has reports whether an artifact of a job is there. In a folder, a file of a finished job may have been changed since.
func (p *performer[P, E]) has(r *record.Record, ref artifact.Ref) bool {
	if p.folder != nil && r.Complete() {
		return p.folder.Holds(ref)
	}
	return p.space.Has(ref)
}

// attempt runs the author's function once and commits the record.
func (p *performer[P, E]) attempt(ctx context.Context, t task[P, E], r *record.Record) error {
	n := r.Attempts() + 1
	if p.attempts > 0 && n > p.attempts {
		return Permanentf("job %s was begun %d times and got nowhere: the process died each time (out of memory?) or hung beyond its deadline", digest.Short(r.Key), n-1)
	}
	if err := r.SetAttempts(n); err != nil {
		return err
	}
	work := ctx
	if p.deadline > 0 {
		var cancel context.CancelFunc
		work, cancel = context.WithTimeoutCause(ctx, p.deadline, fmt.Errorf("the job took longer than --deadline %s", p.deadline))
		defer cancel()
	}
	job := p.newJob(t, r)
	err := p.abandonable(ctx, work, func() error { return p.call(work, job, t.in) })
	if err == nil {
		return r.Commit()
	}
	if ctx.Err() != nil { // interrupted, not failed
		_ = r.SetAttempts(n - 1)
		return context.Cause(ctx)
	}
	if work.Err() != nil && !unfit(err) { // where the next attempt goes on, whatever ended this one
		return fmt.Errorf("%w (%s)", context.Cause(work), err.Error())
	}
	if artifact.Unwritable(err) || bus.IsUnusable(err) { // not the job's failure
		_ = r.SetAttempts(n - 1)
	}
	return err
}

// hangGrace is how long a job may take to end once its deadline is over: as long as it takes to save what was done.
const hangGrace = 5 * time.Minute

// hungError is a job that does not end. Its process cannot be used any more: nobody knows what the job still does.
type hungError struct{ error }

func (hungError) Unfit() bool { return true }

// abandonable calls do, which ends soon after work, and leaves it behind when it does not although its deadline is over.
// While the process is asked to end, it is waited for: it saves what was done.
func (p *performer[P, E]) abandonable(ctx, work context.Context, do func() error) error {
	if p.deadline == 0 {
		return do()
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-work.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(p.grace):
	}
	if ctx.Err() != nil {
		return <-done
	}
	return hungError{fmt.Errorf("the job hangs: it has not ended %s after its deadline, and its process ends instead", p.grace)}
}

// call runs the author's function and turns a panic into an error, so that one
// bad input cannot take the other jobs of the process down.
func (p *performer[P, E]) call(ctx context.Context, job *Job[P], in []E) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("panic", "value", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in stage %s: %v (a defect: the log has the stack)", p.spec.Name, v)
		}
	}()
	if p.spec.Gather != nil {
		return p.spec.Gather(ctx, job, in)
	}
	return p.spec.Work(ctx, job, in[0])
}

func (p *performer[P, E]) newJob(t task[P, E], r *record.Record) *Job[P] {
	return &Job[P]{
		Key: r.Key, Run: t.run, Params: t.params, Host: p.host,
		Log:   p.log.With("run", t.run, "job", digest.Short(r.Key)),
		space: p.space, record: r,
		emit: func(ctx context.Context, r *record.Record, body event.Body) error {
			raw, err := event.Marshal(body)
			if err != nil {
				return err
			}
			isNew, err := r.Add(body.Kind(), raw)
			if err != nil || !isNew {
				return err
			}
			return p.announce(ctx, t, r, record.Output{Kind: body.Kind(), Body: raw}, true)
		},
		progress: p.report(t.run, r.Key),
		show: func(path, name string, replace bool) error {
			return p.showLive(r, path, filepath.Join(p.outputs(t), name), replace)
		},
		leave: func(name string, content []byte) error {
			return artifact.WriteFile(filepath.Join(p.outputs(t), name), content)
		},
	}
}

// outputs is the folder where people look for what the task makes.
func (p *performer[P, E]) outputs(t task[P, E]) string {
	if p.folder != nil {
		return p.folder.Dir()
	}
	return filepath.Join(p.journal.RunDir(t.run), t.folder(p.spec.Name))
}

// folder is where a run's outputs of the stage lie: those of other parameters than the run's own in a folder of their own,
// named by what differs.
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

// announce makes an output public: a link for people to every artifact that the
// job made, then the event. In a folder the artifacts have their names already.
func (p *performer[P, E]) announce(ctx context.Context, t task[P, E], r *record.Record, out record.Output, renew bool) error {
	if p.folder != nil {
		return nil
	}
	for _, ref := range r.Made(out) { // those that are passed on have been linked by their maker
		if err := p.journal.Link(t.run, t.folder(p.spec.Name), ref); err != nil {
			return fmt.Errorf("linking %s: %w", ref, err)
		}
	}
	e, err := event.Wrap(t.run, p.spec.Name, r.Key, t.part, out.Kind, out.Body)
	if err != nil {
		return err
	}
	e.Input, e.Overrides = t.input, t.overrides
	if renew {
		return p.announcer.Renew(ctx, e)
	}
	return p.announcer.Announce(ctx, e)
}
