package stage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

// wantClimbed makes sure that the job was begun twice, that its first step was done once, and that each output was
// announced once.
func (w *harness) wantClimbed(run string) {
	w.t.Helper()
	w.wantBegun(2)
	if got := w.text(run, "climb", "climb.log"); got != "step 1\nstep 2\nstep 2\nstep 3\n" {
		w.t.Errorf("steps: %q", got)
	}
	if written := w.history(run, "tokens.written"); len(written) != 3 {
		w.t.Errorf("%d outputs", len(written))
	}
	w.clean()
}

func TestAKilledJobContinuesAfterTheOutputsItHas(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.busy("climb", "--mode", "wait")
	// The first output is announced already, and the log of the unfinished job can be read.
	if len(w.history("r", "tokens.written")) != 1 || w.text("r", "climb", "one.step1") != "x" {
		t.Error("the first step is not announced")
	}
	if got := w.text("r", "climb", "climb.log"); got != "step 1\nstep 2\n" {
		t.Errorf("live file: %q", got)
	}
	p.kill()
	w.let()
	next := w.serve("climb", "--mode", "wait")
	w.outcomes("r", "climb", 1, event.Done)
	next.stop()
	w.wantClimbed("r")
}

func TestAFailedJobContinuesAfterTheOutputsItHas(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.serve("climb", "--mode", "fail", "--times", "1")
	w.sources("r", "one")
	w.outcomes("r", "climb", 1, event.Done)
	p.stop()
	w.wantClimbed("r")
}

// Attempts are counted from the last output, so that a long job may fail several times on its way.
func TestGettingSomewhereIsNoFailure(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.serve("climb", "--mode", "fail", "--times", "2", "--attempts", "3")
	w.sources("r", "one")
	w.outcomes("r", "climb", 1, event.Done)
	p.stop()
	w.wantBegun(3)
}

func TestAnUnfinishedJobWhoseOutputIsGoneBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	p := w.busy("climb", "--mode", "wait")
	p.kill()
	if err := os.RemoveAll(filepath.Join(w.data, "objects")); err != nil {
		t.Fatal(err)
	}
	w.let()
	next := w.serve("climb", "--mode", "wait")
	w.outcomes("r", "climb", 1, event.Done)
	next.stop()
	if got := w.text("r", "climb", "climb.log"); got != "step 1\nstep 2\nstep 3\n" {
		t.Errorf("steps: %q", got)
	}
	if got := w.text("r", "climb", "one.step1"); got != "x" {
		t.Errorf("first step: %q", got)
	}
}

func TestOneShotContinuesWhereItWasKilled(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	in, out := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "out")
	writeFile(t, in, "text")
	args := []string{"run", "--in", in, "--out", out, "--trace", w.trace, "--mode", "wait", "--release", w.release}
	p := w.start(w.command("climb", args...))
	w.begun(1)
	p.kill()
	w.let()
	status, _, stderr := w.run("climb", args...)
	if status != command.Done {
		t.Fatalf("status %d: %s", status, stderr)
	}
	b, err := os.ReadFile(filepath.Join(out, "climb.log"))
	if err != nil || string(b) != "step 1\nstep 2\nstep 2\nstep 3\n" {
		t.Errorf("steps: %q, %v", b, err)
	}
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != 4+1 { // and the jobs' records, out of sight
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

// A job dies after its last output and before its end. The next attempt shows its log while it works, and people find
// the log afterwards.
func TestALogIsFoundAfterACrashBeforeTheEnd(t *testing.T) {
	t.Parallel()
	attempts := 0
	spec := shout()
	spec.Work = func(ctx context.Context, job *Job[testParams], in event.SourceAdded) error {
		attempts++
		if _, err := job.LiveFile("shout.log"); err != nil {
			return err
		}
		ref, err := writeText(job, "shout.log", "all of it")
		if err == nil {
			err = job.Emit(ctx, event.TokensWritten{Source: in.Name, Batch: ref})
		}
		if err == nil && attempts == 1 {
			err = errors.New("it dies")
		}
		return err
	}
	p := newPerformer(t, spec)
	job := task[testParams, event.SourceAdded]{run: "r", in: []event.SourceAdded{{Name: "one"}}}
	if _, err := p.perform(t.Context(), job); err == nil {
		t.Fatal("the first attempt ends well")
	}
	if _, err := p.perform(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(p.outputs(job), "shout.log"))
	if attempts != 2 || err != nil || string(b) != "all of it" {
		t.Errorf("after %d attempts the log is %q, %v", attempts, b, err)
	}
}
