// Package stage is the door through which a stage enters the pipeline. The
// author writes one function from a job to its outputs; Main gives it the
// connection, a durable consumer, heartbeats, retries, dead letters, the
// artifact store, logs, metrics, progress and a clean shutdown, and makes of it
// a program with two forms:
//
//	<stage> serve                          react to events
//	<stage> run --in FILE … --out DIR      one shot, no bus
//
// The package does not know any particular stage: the six of this project and a
// user's own go through the same door.
package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/progress"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

// Spec describes a stage whose parameters are the struct P (see package param
// for its tags) and which answers events of type E. Exactly one of Work and
// Gather is set.
type Spec[P any, E event.Body] struct {
	Name    string // one word; part of subjects, flags and folders
	About   string // what it does, one sentence
	Example string // a command line, for --help

	// Version is part of every job's key. Change it when the same inputs give
	// other outputs than before, so that recorded jobs are done again.
	Version string

	Defaults P
	Check    func(P) error // validates parameters beyond their types; may be nil

	// Complete fills in parameters that follow from others and from files that those name: a digest that belongs in
	// the job's key, say. It may be nil.
	Complete func(*P) error

	// Work answers one event. What it returns says what happens next: nil
	// commits the job, Permanent(err) gives the event up at once, any other error
	// is tried again. It must return soon after ctx ends.
	Work func(ctx context.Context, job *Job[P], in E) error

	// Gather answers all parts of a set at once, ordered by part, when every
	// one of them is there.
	Gather func(ctx context.Context, job *Job[P], in []E) error

	// Files makes events out of the files that `run --in` names; nil where the
	// stage cannot work on files alone.
	Files func(in *Files) ([]E, error)

	// Threads and Device say that the stage heeds Host.Threads and Host.Device: the program takes the flags of what it heeds.
	Threads, Device bool

	// OnDataset returns in with another dataset in place of its own, which --dataset names; nil where the stage reads no
	// dataset beside its input.
	OnDataset func(in E, manifest artifact.Ref) E

	// Choice lets a rerun over a run choose among the events that the stage answers; nil where it answers all of them.
	Choice *Choice[E]

	// Emits lists zero values of the events the stage announces.
	Emits []event.Body

	// Results says what people are shown of those events: a line on the screen, columns of the run's table.
	Results []results.Result
}

// declaration is what the stage says of its results.
func (s Spec[P, E]) declaration() results.Declaration {
	return results.Declaration{Stage: s.Name, Answers: s.kind(), Results: s.Results}
}

func (s Spec[P, E]) kind() string {
	var zero E
	return zero.Kind()
}

// validate finds what is wrong with a Spec itself.
func (s Spec[P, E]) validate() error {
	switch {
	case !event.ValidRun(s.Name): // names and runs are made of the same characters
		return fmt.Errorf("stage name %q: use letters, digits, - and _", s.Name)
	case !event.ValidKind(s.kind()):
		return fmt.Errorf("stage %s answers %q: want an event's kind, noun.verb", s.Name, s.kind())
	case (s.Work == nil) == (s.Gather == nil):
		return fmt.Errorf("stage %s: set exactly one of Work and Gather", s.Name)
	}
	for _, r := range s.Results {
		if !slices.ContainsFunc(s.Emits, func(b event.Body) bool { return b.Kind() == r.Kind }) {
			return fmt.Errorf("stage %s: Results speak of %s, Emits does not", s.Name, r.Kind)
		}
	}
	return s.declaration().Check()
}

// Main runs the stage as a program and returns its exit status: 0 done,
// 1 failed, 2 wrong usage, 3 what it needs was unusable for too long.
func Main[P any, E event.Body](s Spec[P, E], args []string) int {
	if err := s.validate(); err != nil {
		return command.ExitStatus(cmp.Or(s.Name, "stage"), err, os.Stderr)
	}
	return runApp(s, args)
}

// permanent marks an error that trying again cannot mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent marks err as one that every further attempt would meet: the job is not tried again.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanent{err}
}

// Permanentf is Permanent of a formatted error.
func Permanentf(format string, args ...any) error { return Permanent(fmt.Errorf(format, args...)) }

// Deterministic is work, a Work or a Gather, that does the same whenever it is done: what fails once would fail again, and
// is not tried again. What the device, the disk, the event server or a signal does to it is no such failure.
func Deterministic[P, E any](work func(context.Context, *Job[P], E) error) func(context.Context, *Job[P], E) error {
	return func(ctx context.Context, job *Job[P], in E) error { return Permanent(work(ctx, job, in)) }
}

func isPermanent(err error) bool { return errors.As(err, new(permanent)) }

// unfit says whether err leaves this process unable to do any job, while another may do this one: a device that is lost.
// Errors say so by a method Unfit. Serving ends with such an error, and whoever started the process starts it again.
func unfit(err error) bool {
	var u interface{ Unfit() bool }
	return errors.As(err, &u) && u.Unfit()
}

// Progress is what a job says while it works: that Done of Total things are done, what Unit is counted, and Values such as step,
// loss, tokens_per_second or learning_rate.
type Progress = progress.Report

// Host is how a stage uses the machine it runs on. It never changes what a job
// computes, so it is no part of the job's key.
type Host struct {
	Threads int    // worker threads of compute kernels
	Device  string // its name for compute.Open
}

// Job is one stage's work for one event.
type Job[P any] struct {
	Key    string // digest of stage, version, parameters and inputs
	Run    string
	Params P
	Host   Host
	Log    *slog.Logger

	space    artifact.Space
	record   *record.Record
	emit     func(context.Context, *record.Record, event.Body) error
	progress func(Progress)
	show     func(path, name string, replace bool) error
	leave    func(name string, content []byte) error
}

// Path returns the file that holds an input's bytes, its digest checked.
func (j *Job[P]) Path(ref artifact.Ref) (string, error) {
	path, err := j.space.Path(ref)
	return path, Permanent(err)
}

// Create starts an output artifact. name is the file name people will see.
func (j *Job[P]) Create(kind, mediaType, name string) (*artifact.Writer, error) {
	return j.space.Create(kind, mediaType, name)
}

// Emit records body as an output of the job and announces it. Emitting what the
// job has emitted before, in this attempt or an earlier one, does nothing.
func (j *Job[P]) Emit(ctx context.Context, body event.Body) error {
	return j.emit(ctx, j.record, body)
}

// Progress reports how far the job is. It may be called often.
func (j *Job[P]) Progress(p Progress) { j.progress(p) }

// Note logs a sentence that a launcher shows to whoever watches the run.
func (j *Job[P]) Note(format string, args ...any) {
	j.Log.Log(context.Background(), levelNote, fmt.Sprintf(format, args...))
}

// Scratch is a directory that survives an interruption of the job and is
// removed when the job is committed.
func (j *Job[P]) Scratch() (string, error) { return j.record.Scratch() }

// Advanced says that the job has put what it needs to go on from here into
// Scratch: however often it is interrupted from now on, it gets somewhere.
func (j *Job[P]) Advanced() error { return j.record.SetAttempts(1) }

// LiveFile is the path of a file in Scratch that people see, under its name,
// beside the job's artifacts while the job is at work: a log, say. At the end
// the job makes an artifact of that name, which takes its place.
func (j *Job[P]) LiveFile(name string) (string, error) {
	dir, err := j.Scratch()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, j.show(path, name, false)
}

// Emitted returns what the job announced in earlier attempts, oldest first, for
// work that continues where it was interrupted. An output whose artifacts are
// gone or damaged since is not among them, nor is what followed it: it is to be
// made again, although Scratch may be ahead of it.
func Emitted[B event.Body, P any](j *Job[P]) ([]B, error) {
	var found []B
	var zero B
	for _, out := range j.record.Outputs {
		if out.Kind != zero.Kind() {
			continue
		}
		var body B
		if err := event.Unmarshal(out.Body, &body); err != nil {
			return nil, fmt.Errorf("record of job %s: %w", digest.Short(j.Key), err)
		}
		found = append(found, body)
	}
	return found, nil
}
