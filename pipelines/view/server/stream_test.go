package server

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"bitnet1/pipelines/view/index"
	"bitnet1/shared/measure/runtest"
)

// However much is new, a message at a time brings it, and every run has its turn.
func TestMessagesOfCurves(t *testing.T) {
	dir := t.TempDir()
	const many, lines = 40, 3000
	run := func(i int) runtest.Run { return runtest.Run{Name: fmt.Sprint("run-", i), Points: lines, Of: 2 * lines} }
	for i := range many {
		r := run(i)
		if i > 0 {
			r.Points = 0
		}
		runtest.Write(t, dir, r)
	}
	log, err := os.ReadFile(runtest.LogFile(dir, run(0).Name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < many; i++ {
		if err := os.MkdirAll(strings.TrimSuffix(runtest.LogFile(dir, run(i).Name), "/train.jsonl"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(runtest.LogFile(dir, run(i).Name), log, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x, err := index.Open(dir)
	if err == nil {
		err = x.Refresh()
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &curveStream{asked: asked{over: index.OverSteps, keys: []string{"train_bpc"}, points: 1000}, index: x,
		have: make([]sent, many)}
	for i := range many {
		c.names = append(c.names, run(i).Name)
	}
	defer x.Watch(c.names)()
	all := func() (messages int, points map[int]int) {
		points = map[int]int{}
		for {
			m := c.message()
			size := 0
			for _, p := range m {
				size += p.size()
				points[p.Run] += len(p.Lines["train_bpc"].Mean)
			}
			if size > messageSize+20000 { // no more than one curve too much
				t.Errorf("a message of %d bytes", size)
			}
			if messages++; c.next == 0 {
				return messages, points
			}
		}
	}
	if messages, points := all(); messages < 5 || len(points) != many || points[0] < 500 {
		t.Errorf("%d messages, %v", messages, points)
	}
	if messages, points := all(); messages != 1 || len(points) != 0 {
		t.Errorf("nothing is new, but %d messages say %v", messages, points)
	}
	for i := range many {
		f, err := os.OpenFile(runtest.LogFile(dir, run(i).Name), os.O_APPEND|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.Write(runtest.Line(run(i), lines))
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Refresh(); err != nil {
		t.Fatal(err)
	}
	if messages, points := all(); messages != 1 || len(points) != many || points[7] > 2 {
		t.Errorf("a line each is new, but %d messages say %v", messages, points)
	}
}
