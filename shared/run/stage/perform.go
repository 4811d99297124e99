package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/vfs"
)

// performer does jobs of one stage, wherever they come from.
type performer[P any, E event.Body] struct {
	spec      Spec[P, E]
	fs        vfs.FS // of the records
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

// perform does the job or finds that it is done, and announces its outputs. The error is record.ErrBusy when another
// process is at it.
func (p *performer[P, E]) perform(ctx context.Context, t task[P, E]) (result, error) {
	var inputs []string
	for _, in := range t.in {
		inputs = append(inputs, in.Inputs()...)
	}
	key, canonical, err := record.Key(p.spec.Name, p.spec.Version, t.params, inputs)
	if err != nil {
		return result{}, Permanent(err)
	}
	r, err := record.OpenOn(p.fs, p.records, p.spec.Name, key, canonical, inputs)
	if err != nil {
		return result{key: key}, err
	}
	defer r.Close()
	for _, damage := range r.Damage {
		p.log.Warn(damage.Error(), "run", t.run)
	}
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
	if p.folder == nil && len(r.Outputs) > 0 && !r.Complete() { // an earlier attempt's clock may have been another one
		if err := t.follow(p.journal, p.spec.Emits); err != nil {
			return result{key: key}, err
		}
	}
	for i := range r.Outputs { // of a finished job, or of its earlier attempts
		if err := p.announce(ctx, t, r, i, t.renew); err != nil {
			return result{key: key}, err
		}
	}
	cached := r.Complete()
	if !cached {
		if r.Unkeyed, err = param.Unkeyed(p.spec.Defaults, t.params); err != nil {
			return result{key: key}, Permanent(err)
		}
		err := p.attempt(ctx, t, r)
		if isAnew(err) {
			p.log.Warn("a file of the unfinished job is damaged, and the job is done from its beginning", "run", t.run,
				"error", err)
			if err = r.Reset(); err == nil {
				err = p.attempt(ctx, t, r)
			}
		}
		if err != nil {
			return result{key: key}, err
		}
	}
	return result{key: key, outputs: r.Outputs, cached: cached}, nil
}

func (p *performer[P, E]) newJob(t task[P, E], r *record.Record) *Job[P] {
	return &Job[P]{
		Key: r.Key, Run: t.run, Params: t.params, Host: p.host,
		Log: p.log.With("run", t.run, "job", digest.Short(r.Key)),
		fs:  p.fs, space: p.space, record: r,
		emit: func(ctx context.Context, r *record.Record, body event.Body) error {
			raw, err := event.Marshal(body)
			if err != nil {
				return err
			}
			isNew, err := r.Add(body.Kind(), raw)
			if err != nil || !isNew {
				return err
			}
			return p.announce(ctx, t, r, len(r.Outputs)-1, true)
		},
		progress: p.report(t.run, r.Key),
		show: func(path, name string, replace bool) error {
			return p.showLive(r, path, filepath.Join(p.outputs(t), name), replace)
		},
		leave: func(name string, content []byte) error {
			return artifact.WriteFileOn(p.fs, filepath.Join(p.outputs(t), name), content)
		},
	}
}

// announce makes the i-th output public: a link for people to every artifact that the job made, then the event. In a
// folder the artifacts have their names already.
func (p *performer[P, E]) announce(ctx context.Context, t task[P, E], r *record.Record, i int, renew bool) error {
	if p.folder != nil {
		return nil
	}
	out := r.Outputs[i]
	for _, ref := range r.Made(i) { // those that are passed on have been linked by their maker
		if err := p.journal.Link(t.run, t.folder(p.spec.Name), ref); err != nil {
			return fmt.Errorf("linking %s: %w", ref, err)
		}
	}
	e, err := event.Wrap(t.run, p.spec.Name, r.Key, t.part, out.Kind, out.Body)
	if err != nil {
		return err
	}
	e.Input, e.Overrides = t.input, t.overrides
	t.date(&e)
	if renew {
		return p.announcer.Renew(ctx, e)
	}
	return p.announcer.Announce(ctx, e)
}
