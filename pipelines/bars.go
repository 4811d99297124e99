package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"bitnet1/shared/bus"
	"bitnet1/shared/event"
)

// barScreen keeps one line a stage at the bottom of a terminal; what happens
// scrolls by above them.
type barScreen struct {
	l    *launcher
	out  io.Writer
	bars *mpb.Progress
	all  []*mpb.Bar
	stop chan struct{}
}

const barSteps = 1000

func newBarScreen(l *launcher, out *os.File) *barScreen {
	return &barScreen{l: l, out: out}
}

func (s *barScreen) header() { fmt.Fprint(s.out, headerText(s.l)) }

// start puts the bars up; it waits for the first event, when there is a tracker.
func (s *barScreen) start() {
	s.bars = mpb.New(mpb.WithOutput(s.out), mpb.WithRefreshRate(150*time.Millisecond), mpb.WithWidth(18))
	s.stop = make(chan struct{})
	for _, st := range s.l.stages {
		s.all = append(s.all, s.bars.New(barSteps, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return s.before(st) })),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return s.after(st) }))))
	}
	go s.turn()
}

// turn moves the bars with the tracker.
func (s *barScreen) turn() {
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			s.set()
		}
	}
}

func (s *barScreen) set() {
	for i, l := range s.l.tracker.lines(s.l.stages, time.Now()) {
		// A full bar would count as completed and stop being drawn, and more
		// may come: checkpoints arrive while others are answered.
		s.all[i].SetCurrent(min(int64(l.Fraction*barSteps), barSteps-1))
	}
}

func (s *barScreen) line(st plannedStage) line {
	return s.l.tracker.lines([]plannedStage{st}, time.Now())[0]
}

func (s *barScreen) before(st plannedStage) string {
	l := s.line(st)
	return fmt.Sprintf("%-9s %-8s", l.Stage, l.State)
}

func (s *barScreen) after(st plannedStage) string {
	l := s.line(st)
	return fmt.Sprintf(" %-16s %s", count(l), strings.Join(nonEmpty(l.Rate, l.Left, l.Extra), "  "))
}

func (s *barScreen) note(text string) { s.write(text) }

func (s *barScreen) warn(stage, text string) { s.write("warning: " + stage + ": " + text) }

func (s *barScreen) write(text string) {
	if s.bars == nil {
		fmt.Fprintln(s.out, text)
		return
	}
	_, _ = s.bars.Write([]byte(text + "\n"))
}

func (s *barScreen) event(e event.Envelope) {
	if s.bars == nil {
		s.start()
	}
	if text := s.l.headline(e); text != "" {
		s.write(text)
	}
}

func (s *barScreen) progress(bus.Progress) {}

// close leaves the bars as they are last and gives the terminal back.
func (s *barScreen) close() {
	if s.bars == nil {
		return
	}
	close(s.stop)
	s.set()
	for _, b := range s.all {
		b.Abort(false)
	}
	s.bars.Wait()
}
