package stage

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

// span is the part of a run's history that a rerun is about, as the flags --since and --every give it. The zero value
// is all of the history.
type span struct {
	since  string    // as the user gave it
	from   time.Time // events that were announced before are left out
	number int       // events of smaller numbers are left out
	// every is the least distance between the numbers of two events that are taken. Of events without numbers, one in so
	// many is taken.
	every int
}

func spanFlags[E event.Body](c *Choice[E]) []cli.Flag {
	since, every := "with --run: only events announced since then: a time such as 2026-11-28 or 2026-11-28T09:30, or an "+
		"age such as 36h or 7d", "with --run: only every `N`th event"
	if c != nil {
		since = fmt.Sprintf("with --run: only %ss since then: a %s, a time such as 2026-11-28 or 2026-11-28T09:30, or an "+
			"age such as 36h or 7d", c.Noun, c.Number)
		every = fmt.Sprintf("with --run: only %ss that are at least `N` %ss apart", c.Noun, c.Number)
	}
	return []cli.Flag{&cli.StringFlag{Name: "since", Usage: since}, &cli.IntFlag{Name: "every", Usage: every}}
}

// spanOf reads the flags. Only events with numbers can be counted from a number on.
func spanOf(c *cli.Context, numbered bool) (s span, err error) {
	if c.IsSet("every") {
		if s.every = c.Int("every"); s.every < 1 {
			return s, command.Usagef("--every %d: use 1 or more", s.every)
		}
	}
	if s.since = c.String("since"); s.since == "" {
		return s, nil
	}
	negative := strings.HasPrefix(s.since, "-")
	if s.number, err = strconv.Atoi(s.since); err == nil && numbered && !negative {
		return s, nil
	}
	s.number = 0
	if s.from, err = moment(s.since, time.Now()); err != nil || negative {
		what := "a time such as 2026-11-28 or 2026-11-28T09:30, or an age such as 36h or 7d"
		if numbered {
			what = "a number, " + what
		}
		return s, command.Usagef("--since %s: give %s", s.since, what)
	}
	return s, nil
}

// moment reads a time, of this machine's zone unless it names one, or an age before now.
func moment(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if age, err := time.ParseDuration(text); err == nil {
		return now.Add(-age), nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time", text)
}

func (s span) isAll() bool { return s == span{} }

// String ends a sentence such as "there is no checkpoint".
func (s span) String() string {
	if s.since == "" {
		return ""
	}
	return " since " + s.since
}

// includes reports whether an event, of that number if events have numbers, is recent enough.
func (s span) includes(e event.Envelope, number int) bool {
	return number >= s.number && !time.UnixMilli(e.Time).Before(s.from)
}

// numbers leaves out the numbers that are too close to the one before; they are in ascending order.
func (s span) numbers(order []int) (taken []int) {
	for _, n := range order {
		if len(taken) == 0 || n-taken[len(taken)-1] >= s.every {
			taken = append(taken, n)
		}
	}
	return taken
}

// events are the events without numbers that belong to the span.
func (s span) events(all []event.Envelope) (taken []event.Envelope) {
	recent := 0
	for _, e := range all {
		if !s.includes(e, 0) {
			continue
		}
		if s.every < 2 || recent%s.every == 0 {
			taken = append(taken, e)
		}
		recent++
	}
	return taken
}
