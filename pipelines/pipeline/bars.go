package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/terminal"
)

// barScreen keeps one line for each stage at the bottom of a terminal. Events scroll by above these lines.
type barScreen struct {
	l   *launcher
	out io.Writer

	mu    sync.Mutex    // events and warnings come from several goroutines
	lines *mpb.Progress // nil: before the first event, and after the end
	all   []*mpb.Bar
}

func newBarScreen(l *launcher, out *os.File) *barScreen {
	return &barScreen{l: l, out: out}
}

func (s *barScreen) header() { fmt.Fprint(s.out, terminal.Fit(headerText(s.l), terminal.Width(s.out))) }

func (s *barScreen) view(address string) { fmt.Fprint(s.out, viewText(address)) }

// start shows the lines. It is called with the first event, because the tracker exists by then. Every refresh draws the
// lines anew, in the width that the terminal has at that time.
func (s *barScreen) start() {
	s.lines = mpb.New(mpb.WithOutput(s.out), mpb.WithRefreshRate(150*time.Millisecond))
	for _, st := range s.l.stages {
		draw := func(d decor.Statistics) string {
			return drawLine(s.l.tracker.lines([]plannedStage{st}, time.Now())[0], d.AvailableWidth)
		}
		s.all = append(s.all, s.lines.New(1, mpb.NopStyle(), mpb.BarFillerTrim(), mpb.PrependDecorators(decor.Any(draw))))
	}
}

// barWidth is how wide a bar is, with its frame; narrow terminals have no room for one.
const barWidth = 18

// drawLine writes a stage's line, and a bar behind the line if the terminal is wide enough for both.
func drawLine(l line, width int) string {
	width-- // a line that ends at the edge of some terminals begins another
	text := l.Text(0)
	if utf8.RuneCountInString(text)+2+barWidth > width {
		return l.Text(width)
	}
	full := int(l.Fraction * (barWidth - 2))
	return text + "  [" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-2-full) + "]"
}

func (s *barScreen) note(text string) { s.write(terminal.Fit(text, terminal.Width(s.out))) }

func (s *barScreen) warn(stage, text string) { s.write("warning: " + stage + ": " + text) }

func (s *barScreen) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines == nil {
		fmt.Fprintln(s.out, text)
		return
	}
	fmt.Fprint(s.out, "\r") // Ctrl-C has left ^C on the line, and lines are drawn from the column at which the cursor is
	_, _ = s.lines.Write([]byte(text + "\n"))
}

func (s *barScreen) event(e event.Envelope) {
	s.mu.Lock()
	if s.lines == nil && s.all == nil {
		s.start()
	}
	s.mu.Unlock()
	if text := s.l.headline(e); text != "" {
		s.note(text)
	}
}

func (s *barScreen) progress(bus.Progress) {}

// close leaves the last state of the lines on the terminal. Later text stands below them.
func (s *barScreen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines == nil {
		return
	}
	for _, b := range s.all {
		b.Abort(false)
	}
	s.lines.Wait()
	s.lines = nil
}
