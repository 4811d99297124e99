package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"bitnet1/shared/bus"
	"bitnet1/shared/event"
)

// screen shows a run to whoever watches: a person at a terminal, a log file, or
// a program.
type screen interface {
	header()
	note(text string)
	warn(stage, text string)
	event(e event.Envelope)
	progress(p bus.Progress)
	close()
}

func newScreen(c *cli.Context, l *launcher) screen {
	switch {
	case c.Bool("json"):
		return &jsonScreen{l: l, out: json.NewEncoder(c.App.Writer)}
	case term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("TERM") != "dumb":
		return newBarScreen(l, os.Stdout)
	default:
		return &plainScreen{l: l, out: c.App.Writer, last: map[string]time.Time{}}
	}
}

// headerText introduces the run.
func headerText(l *launcher) string {
	var size int64
	for _, s := range l.definition.Sources {
		size += s.Size
	}
	names := make([]string, len(l.stages))
	for i, s := range l.stages {
		names[i] = s.Name
	}
	text := fmt.Sprintf("run %s\n  pipeline %s, preset %s, seed %d, %s (%s)\n  stages   %s\n  data     %s\n",
		l.run, l.definition.Name, l.definition.Preset, l.definition.Seed, plural(len(l.definition.Sources), "source file"), byteSize(size),
		strings.Join(names, ", "), l.journal.RunDir(l.run))
	for _, n := range l.notes {
		text += "  note     " + n + "\n"
	}
	return text
}

// eventText says in a line what an event means for a person; "" for events
// that are of interest to programs only.
func eventText(e event.Envelope) string {
	switch e.Kind {
	case event.DatasetSealed{}.Kind():
		if d, err := event.Into[event.DatasetSealed](e); err == nil {
			return fmt.Sprintf("dataset sealed: %d documents, %d training and %d validation tokens", d.Documents, d.TrainTokens, d.ValidationTokens)
		}
	case event.CheckpointSaved{}.Kind():
		if s, err := event.Into[event.CheckpointSaved](e); err == nil {
			return fmt.Sprintf("checkpoint %d saved: training %.3f, validation sample %.3f bits/token%s", s.Step, s.TrainBits, s.ValidationBits, mark(s.Best, " (best)"))
		}
	case event.EvaluationWritten{}.Kind():
		if v, err := event.Into[event.EvaluationWritten](e); err == nil {
			return fmt.Sprintf("checkpoint %d evaluated: %.3f bits/token, %.3f bits/byte (unigram %.3f)", v.Step, v.BitsPerToken, v.BitsPerByte, v.UnigramEntropy)
		}
	case event.ProbeWritten{}.Kind():
		if p, err := event.Into[event.ProbeWritten](e); err == nil {
			return fmt.Sprintf("checkpoint %d probed: best head L%d.H%d with IPMR %.1f %%", p.Step, p.TopLayer, p.TopHead, 100*p.TopIPMR)
		}
	case event.PackWritten{}.Kind():
		if p, err := event.Into[event.PackWritten](e); err == nil {
			return fmt.Sprintf("checkpoint %d packed: %s", p.Step, byteSize(p.Pack.Size))
		}
	}
	return ""
}

func mark(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

func byteSize(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
}

// plainScreen writes lines, for logs and pipes.
type plainScreen struct {
	l    *launcher
	mu   sync.Mutex
	out  io.Writer
	last map[string]time.Time
}

func (s *plainScreen) print(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format, args...)
}

func (s *plainScreen) header()              { s.print("%s", headerText(s.l)) }
func (s *plainScreen) note(text string)     { s.print("%s\n", text) }
func (s *plainScreen) warn(st, text string) { s.print("warning: %s: %s\n", st, text) }
func (s *plainScreen) close()               {}
func (s *plainScreen) event(e event.Envelope) {
	if text := eventText(e); text != "" {
		s.print("%s\n", text)
	}
}

// progress prints a stage's line every five seconds.
func (s *plainScreen) progress(p bus.Progress) {
	s.mu.Lock()
	due := time.Since(s.last[p.Stage]) > 5*time.Second
	if due {
		s.last[p.Stage] = time.Now()
	}
	s.mu.Unlock()
	if !due {
		return
	}
	for _, l := range s.l.tracker.lines(s.l.stages, time.Now()) {
		if l.Stage == p.Stage {
			s.print("%-9s %s\n", l.Stage, strings.Join(nonEmpty(l.State, count(l), l.Rate, l.Left, l.Extra), "  "))
		}
	}
}

func count(l line) string {
	if l.Total == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d %s", l.Done, l.Total, l.Unit)
}

func nonEmpty(parts ...string) []string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return kept
}

// jsonScreen writes one JSON object a line, for programs.
type jsonScreen struct {
	l   *launcher
	mu  sync.Mutex
	out *json.Encoder
}

func (s *jsonScreen) print(v map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.out.Encode(v)
}

func (s *jsonScreen) header() {
	s.print(map[string]any{"type": "run", "run": s.l.run, "definition": s.l.definition, "notes": s.l.notes})
}
func (s *jsonScreen) note(text string) { s.print(map[string]any{"type": "note", "text": text}) }
func (s *jsonScreen) warn(st, text string) {
	s.print(map[string]any{"type": "warning", "stage": st, "text": text})
}
func (s *jsonScreen) close() {}
func (s *jsonScreen) event(e event.Envelope) {
	body, err := event.Plain(e.Body)
	if err != nil {
		s.warn(e.Stage, err.Error())
	}
	s.print(map[string]any{"type": "event", "event": e, "body": body})
}
func (s *jsonScreen) progress(p bus.Progress) {
	raw, err := event.Marshal(p)
	if err != nil {
		return
	}
	if plain, err := event.Plain(raw); err == nil {
		s.print(map[string]any{"type": "progress", "progress": plain})
	}
}
