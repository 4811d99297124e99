package stage

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

// Choice says how a rerun over a run chooses among the events that the stage answers: the last one, the best one, all
// of them, or one by its number. It makes a flag of `run --run RUN`.
type Choice[E event.Body] struct {
	Noun   string      // what such an event is called, and the flag's name: checkpoint
	Number string      // what its number is called: step
	Of     func(E) int // the number

	// Score is what the best event has the lowest of; ok is false for an event that cannot be the best.
	Score func(E) (score float64, ok bool)

	// NoBest says what no event has where none is the best. It ends the sentence "run r has no checkpoint …".
	NoBest func([]E) string

	// Needs is the artifact without which an event cannot be answered any more.
	Needs func(E) artifact.Ref
}

func (c *Choice[E]) flag() cli.Flag {
	return &cli.StringFlag{
		Name: c.Noun, Value: "last",
		Usage: fmt.Sprintf("which %ss of the run, with --run: last, best, all or a %s (with --since or --every: all); "+
			"without --run: the `FILE` of one", c.Noun, c.Number),
	}
}

// flags are the names of the flag; none without a Choice.
func (c *Choice[E]) flags() []string {
	if c == nil {
		return nil
	}
	return []string{c.Noun}
}

// which is what the user has given to the flag. A span of the history is about all events in it.
func (c *Choice[E]) which(command *cli.Context, s span) string {
	switch {
	case c == nil:
		return ""
	case !s.isAll() && !given(command, c.Noun):
		return "all"
	}
	return command.String(c.Noun)
}

// file is the file that the flag names where no run is named; "" where it names none.
func (c *Choice[E]) file(command *cli.Context) string {
	if c == nil || !given(command, c.Noun) || command.IsSet("run") {
		return ""
	}
	return command.String(c.Noun)
}

// choose returns the events of a span that are meant, in the order of their numbers. A number may also be that of an
// event which other parameters than the run's own have given.
func (c *Choice[E]) choose(events, own []event.Envelope, run, which string, s span) ([]event.Envelope, error) {
	number, err := strconv.Atoi(which)
	switch byNumber := err == nil; {
	case !byNumber:
		events = own
	case !s.isAll():
		return nil, command.Usagef("--%s %s is one %s: leave out --since and --every", c.Noun, which, c.Noun)
	}
	bodies, envelopes := map[int]E{}, map[int]event.Envelope{} // of equal numbers the last one
	for _, e := range events {
		body, err := event.Into[E](e)
		if err != nil {
			return nil, err
		}
		bodies[c.Of(body)], envelopes[c.Of(body)] = body, e
	}
	order := slices.Sorted(maps.Keys(bodies))
	known := order
	order = s.numbers(slices.DeleteFunc(slices.Clone(order), func(n int) bool { return !s.includes(envelopes[n], n) }))
	switch {
	case len(order) == 0:
		return nil, outsideError{fmt.Errorf("run %s has no %s%s; its %ss are %v", run, c.Noun, s, c.Number, known)}
	case which == "all":
		var all []event.Envelope
		for _, n := range order {
			all = append(all, envelopes[n])
		}
		return all, nil
	case which == "last":
		number = order[len(order)-1]
	case which == "best":
		if number, err = c.best(bodies, order, run); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, command.Usagef("--%s %s: use last, best, all or a %s", c.Noun, which, c.Number)
	}
	if e, ok := envelopes[number]; ok {
		return []event.Envelope{e}, nil
	}
	return nil, fmt.Errorf("run %s has no %s at %s %d; its %ss are %v", run, c.Noun, c.Number, number, c.Number, order)
}

// best is the number of the best event, the first of equal ones.
func (c *Choice[E]) best(bodies map[int]E, order []int, run string) (int, error) {
	var all []E
	best, lowest, found := 0, 0.0, false
	for _, n := range order {
		all = append(all, bodies[n])
		if score, ok := c.Score(bodies[n]); ok && (!found || score < lowest) {
			best, lowest, found = n, score, true
		}
	}
	if !found {
		return 0, fmt.Errorf("run %s has no %s %s: use --%s last, all or a %s; its %ss are %v",
			run, c.Noun, c.NoBest(all), c.Noun, c.Number, c.Number, order)
	}
	return best, nil
}

// there leaves out events whose artifacts were freed since (pipeline gc --keep-checkpoints).
func (c *Choice[E]) there(log *slog.Logger, store *artifact.Store, run string, events []event.Envelope) (
	[]event.Envelope, error) {
	var left []event.Envelope
	var gone []string
	for _, e := range events {
		body, err := event.Into[E](e)
		if err == nil && !store.Has(c.Needs(body)) {
			gone = append(gone, fmt.Sprint(c.Of(body)))
			continue
		}
		left = append(left, e)
	}
	if len(left) == 0 {
		return nil, fmt.Errorf("run %s: the %s of %s %s is no longer in the data directory (freed by pipeline gc?): "+
			"choose another with --%s",
			run, c.Noun, c.Number, strings.Join(gone, ", "), c.Noun)
	}
	if len(gone) > 0 {
		log.Warn(c.Noun+"s that are no longer in the data directory are left out", c.Number+"s", strings.Join(gone, ", "))
	}
	return left, nil
}
