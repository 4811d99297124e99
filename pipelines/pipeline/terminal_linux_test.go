package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/terminal/terminaltest"
)

// On a terminal every stage has a line that shows its progress. The run ends with the same text as elsewhere.
func TestTerminal(t *testing.T) {
	outer, inner := terminaltest.Open(t, 40, 150)
	w := newWorld(t)
	args := tiny()
	for i, a := range args {
		if a == "--json" {
			args = append(args[:i:i], args[i+1:]...)
			break
		}
	}
	cmd := w.command("pipeline", args...)
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inner, inner, inner
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inner.Close()
	var seen bytes.Buffer
	_, _ = io.Copy(&seen, outer) // ends with an error when nobody has the other end any more
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, tail(seen.String()))
	}
	for _, text := range []string{"train     working", "80/80 steps", "loss ", "checkpoint 80 saved",
		"training  validation", "optimizer steps taken", "evaluate run --"} {
		if !strings.Contains(seen.String(), text) {
			t.Errorf("the screen never shows %q", text)
		}
	}
	ends(t, w, seen.String())
	w.sameAsReference()
}

// ends checks the last screen: the line that the run has finished, with its duration, is below the lines of the stages,
// and the line of train has the validation loss of the last checkpoint.
func ends(t *testing.T, w *world, screen string) {
	t.Helper()
	after := screen[strings.LastIndex(screen, "80/80 steps"):]
	if !strings.Contains(after, "finished in ") {
		t.Errorf("after the last line of training, the screen does not say that the run has finished:\n%s", after)
	}
	j := journal.Open(w.data)
	runs, err := j.Runs()
	if err != nil || len(runs) != 1 {
		t.Fatalf("runs %v, %v", runs, err)
	}
	saved, err := journal.Bodies[event.CheckpointSaved](j, runs[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("validation %.3f", saved[len(saved)-1].ValidationBits); !strings.Contains(after, want) {
		t.Errorf("the last line of training does not say %q:\n%s", want, after)
	}
}
