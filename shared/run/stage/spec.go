package stage

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
)

// Spec describes a stage whose parameters are the struct P (see package param for its tags) and which answers events of
// type E. Exactly one of Work and Gather is set.
type Spec[P any, E event.Body] struct {
	Name    string // one word; part of subjects, flags and folders
	About   string // what it does, one sentence
	Example string // a command line, for --help

	// Version is part of every job's key. Change it when the same inputs give other outputs than before, so that recorded
	// jobs are done again.
	Version string

	Defaults P
	Check    func(P) error // validates parameters beyond their types; may be nil

	// Complete fills in parameters that follow from others and from files that those name: a digest that belongs in the
	// job's key, say. It may be nil.
	Complete func(*P) error

	// Work answers one event. What it returns says what happens next: nil commits the job, Permanent(err) gives the event
	// up at once, any other error is tried again. It must return soon after ctx ends.
	Work func(ctx context.Context, job *Job[P], in E) error

	// Gather answers all parts of a set at once, ordered by part, when every one of them is there.
	Gather func(ctx context.Context, job *Job[P], in []E) error

	// Files makes events out of the files that `run --in` names; nil where the stage cannot work on files alone.
	Files func(in *Files) ([]E, error)

	// Threads and Device say that the stage heeds Host.Threads and Host.Device: the program takes the flags of what it
	// heeds.
	Threads, Device bool

	// Devices says that the stage heeds Host.Devices. CheckHost finds what is impossible about a Host and parameters
	// before any work begins; it may be nil.
	Devices   bool
	CheckHost func(P, Host) error

	// OnDataset returns in with another dataset in place of its own, which --dataset names; nil where the stage reads no
	// dataset beside its input.
	OnDataset func(in E, manifest artifact.Ref) E

	// Choice lets a rerun over a run choose among the events that the stage answers; nil where it answers all of them.
	Choice *Choice[E]

	// OneShot is what `run` does beyond the two forms that every stage has; nil: nothing.
	OneShot *OneShot[P]

	// Commands are more ways into the program, beside serve, run and describe.
	Commands []*cli.Command

	// Emits lists zero values of the events the stage announces.
	Emits []event.Body

	// Results says what people are shown of those events: a line on the screen, columns of the run's table.
	Results []results.Result
}

// OneShot extends the command `run` of a stage.
type OneShot[P any] struct {
	// Flags are flags of `run` beside those of the parameters, and Overlay sets the parameters that they are about.
	Flags   []cli.Flag
	Overlay func(c *cli.Context, p *P) error

	// Print answers `run --in FILE …` without --out: it writes to c.App.Writer, and leaves no file. It may be nil.
	Print func(c *cli.Context, in []string, p P, host Host) error
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

// Main runs the stage as a program and returns its exit status: 0 done, 1 failed, 2 wrong usage, 3 what it needs was
// unusable for too long.
func Main[P any, E event.Body](s Spec[P, E], args []string) int {
	if err := s.validate(); err != nil {
		return command.ExitStatus(cmp.Or(s.Name, "stage"), err, os.Stderr)
	}
	return runApp(s, args)
}
