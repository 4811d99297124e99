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

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
)

// screen shows a run to whoever watches: a person at a terminal, a log file, or a program.
type screen interface {
	header()
	view(address string) // where the run can be looked at
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
		l.run, l.definition.Name, l.definition.Preset, l.definition.Seed, plural(len(l.definition.Sources), "source file"),
		results.Size(size),
		strings.Join(names, ", "), l.journal.RunDir(l.run))
	for _, n := range l.notes {
		text += "  note     " + n + "\n"
	}
	return text
}

func viewText(address string) string { return "  view     " + address + "\n" }

// headline is the line that a person sees of an event, as its stage declares it. It is "" for events that only programs
// read.
func (l *launcher) headline(e event.Envelope) string {
	declared := l.declarations()
	if _, known := results.Of(declared, e); !known && l.stage(e.Stage) == nil && e.Stage != launcherName {
		// Of a stage that takes part without being in the pipeline file.
		if kept, err := results.Declared(l.journal, l.run, nil); err == nil {
			declared = kept
		}
	}
	return results.Headline(declared, e)
}

// declarations are what the stages of the pipeline say of their results.
func (p *plan) declarations() []results.Declaration {
	all := make([]results.Declaration, len(p.stages))
	for i, s := range p.stages {
		all[i] = s.Declaration()
	}
	return all
}

func (p *plan) stage(name string) *plannedStage {
	for i := range p.stages {
		if p.stages[i].Name == name {
			return &p.stages[i]
		}
	}
	return nil
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
func (s *plainScreen) view(address string)  { s.print("%s", viewText(address)) }
func (s *plainScreen) note(text string)     { s.print("%s\n", text) }
func (s *plainScreen) warn(st, text string) { s.print("warning: %s: %s\n", st, text) }
func (s *plainScreen) close()               {}
func (s *plainScreen) event(e event.Envelope) {
	if text := s.l.headline(e); text != "" {
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
			s.print("%s\n", l.Text(0))
		}
	}
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
func (s *jsonScreen) view(address string) {
	s.print(map[string]any{"type": "view", "address": address})
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
