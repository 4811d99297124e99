package stage

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"

	"bitnet1/shared/run/progress"
	"bitnet1/shared/run/terminal"
)

// progressLine shows the progress of a one-shot run as a launcher does: on a terminal a line that moves, elsewhere a
// line every two seconds. What is logged goes through it, so that the two do not mix.
type progressLine struct {
	stage  string
	json   bool // progress is logged, for programs
	moving bool
	out    *os.File

	mu    sync.Mutex
	shown bool             // there is a line that moves
	first map[string]begun // by job
}

// begun is when a job was first heard of, and what part of it was done then: a resumed job has some.
type begun struct {
	at       time.Time
	fraction float64
}

func newProgressLine(c *cli.Context, stage string) *progressLine {
	moving := terminal.Width(os.Stderr) > 0 && os.Getenv("TERM") != "dumb"
	return &progressLine{stage: stage, json: c.Bool("json"), moving: moving, out: os.Stderr, first: map[string]begun{}}
}

const clearLine = "\r\x1b[K"

// Write writes a line of the log.
func (l *progressLine) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown {
		l.shown = false
		if _, err := io.WriteString(l.out, clearLine); err != nil {
			return 0, err
		}
	}
	return l.out.Write(b)
}

// end leaves the line as it is last.
func (l *progressLine) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown {
		fmt.Fprintln(l.out)
	}
	l.shown = false
}

// reporter takes what a job says. Nothing is shown where log is silent.
func (l *progressLine) reporter(log *slog.Logger) func(run, key string) func(Progress) {
	interval := 2 * time.Second
	if l.moving && !l.json {
		interval = 150 * time.Millisecond
	}
	return func(_, key string) func(Progress) {
		limit := rate.Sometimes{Interval: interval}
		return func(p Progress) {
			say := func() { l.show(key, p) }
			if l.json {
				say = func() { logProgress(log, p) }
			}
			switch {
			case !log.Enabled(context.Background(), slog.LevelInfo):
			case l.moving && p.Done >= p.Total: // the line stays as it is then
				say()
			default:
				limit.Do(say)
			}
		}
	}
}

func (l *progressLine) show(key string, p Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.first[key]; !known {
		l.first[key] = begun{time.Now(), p.Fraction()}
	}
	line := progress.Line{Stage: l.stage, State: progress.Working, Report: p,
		Left: progress.LeftOf(p, l.first[key].fraction, time.Since(l.first[key].at))}
	if !l.moving {
		fmt.Fprintln(l.out, line.Text(0))
		return
	}
	fmt.Fprint(l.out, clearLine+line.Text(cmp.Or(terminal.Width(l.out), 80)-1))
	l.shown = true
}

func logProgress(log *slog.Logger, p Progress) {
	args := []any{"done", p.Done, "total", p.Total, "unit", p.Unit}
	for _, name := range slices.Sorted(maps.Keys(p.Values)) {
		args = append(args, name, p.Values[name])
	}
	log.Info("progress", args...)
}
