package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/stage"
	"bitnet1/shared/run/vfs"
)

// program is the command `train run` with the given flags.
func program(t *testing.T, flags ...string) (*exec.Cmd, *bytes.Buffer) {
	return measuretest.Program(t, flags...)
}

// trainWith runs the program to its end.
func trainWith(t *testing.T, flags ...string) { t.Helper(); measuretest.Run(t, flags...) }

// small are the flags of a model that takes milliseconds a step.
func small(manifest, out string, more ...string) []string {
	return append(strings.Fields("--in "+manifest+" --out "+out+
		" --d 24 --layers 2 --heads 2 --ff 40 --batch-tokens 64 --micro-tokens 32 --steps 60 --warmup 5"+
		" --checkpoint-every 16 --log-every 1 --validation-sequences 3"), more...)
}

// However often and however a run is stopped, it ends with the files of one that was not.
func TestResumedRunEndsWithTheSameBytes(t *testing.T) {
	recipes := map[string][]string{
		"v76":               nil,
		"grad 4":            {"--grad-bits", "4"},
		"grad 4, weights 8": {"--grad-bits", "4", "--weight-grad-bits", "8"},
		"busy":              {"--checkpoint-every", "1"}, // always a checkpoint on its way
		"v75":               {"--attention", "pointer", "--kshift-layers", "none", "--stream-bits", "4"},
		"Muon":              {"--optimizer", "muon", "--schedule", "trapezoid"},
		"bonsai":            {"--anneal-binarize"},
		"ramps": strings.Fields("--sequence-start 2 --sequence-ramp 0.6 --batch-start 16 --batch-ramp 0.8 " +
			"--documents separate --weight-decay 0.1 --weight-decay-schedule rate --schedule linear --final-share 0 " +
			"--gamma-steps 20"),
		"truebit": {"--truebit", "--flip-threshold", "4"},
		"v77": strings.Fields("--stream-bits 4 --hidden-bits 4 --value-bits 4 --read-bits 3 --codebook-bits 2 --hadamard 8 " +
			"--grad-bits 4 --optimizer muon"),
		"queries": strings.Fields("--stream-bits 4 --value-bits 4 --query-bits 4 --grad-bits 4"),
	}
	manifest := writeDataset(t, 16, proverbs()...)
	for name, recipe := range recipes {
		t.Run(name, func(t *testing.T) {
			whole, stopped := t.TempDir(), t.TempDir()
			trainWith(t, small(manifest, whole, recipe...)...)
			random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
			flags := small(manifest, stopped, recipe...)
			var how []string
			for step := 1 + random.IntN(6); step < 60; step += 1 + random.IntN(12) {
				stop, late := stopAt(t, step, random.IntN(3), stopped, flags)
				if how = append(how, stop); late {
					break
				}
			}
			trainWith(t, flags...)
			sameFiles(t, whole, stopped, how)
		})
	}
}

// stopAt runs the program and stops it when it has taken a step: by its own limit, by a request or by force. It is late
// when the program has ended before that.
func stopAt(t *testing.T, step, way int, dir string, flags []string) (how string, late bool) {
	t.Helper()
	if way == 0 {
		cmd, said := program(t, append(flags, "--stop-at", fmt.Sprint(step))...)
		if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "as stop_at asks") {
			t.Fatalf("a run that was to stop at step %d ended with %v:\n%s", step, err, said)
		}
		return fmt.Sprintf("stop_at %d", step), false
	}
	signal := map[int]syscall.Signal{1: syscall.SIGTERM, 2: syscall.SIGKILL}[way]
	cmd, said := program(t, flags...)
	let := hold(t, cmd, step)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	log, want := filepath.Join(dir, trainlog.FileName), []byte(fmt.Sprintf(`"step":%d,`, step))
	for {
		b, _ := os.ReadFile(log)
		if bytes.Contains(b, want) {
			break
		}
		select {
		case err := <-ended:
			if err == nil { // the last steps come when nobody looks
				return fmt.Sprintf("the end before %v after step %d", signal, step), true
			}
			t.Fatalf("the program ended before step %d: %v\n%s", step, err, said)
		case <-time.After(time.Millisecond):
		}
	}
	_ = cmd.Process.Signal(signal)
	let()
	return fmt.Sprintf("%v after step %d", signal, step), <-ended == nil
}

// sameFiles compares two folders, byte for byte, and what was announced of the files.
func sameFiles(t *testing.T, a, b string, how []string) {
	t.Helper()
	entries, err := os.ReadDir(a)
	if err != nil {
		t.Fatal(err)
	}
	others, err := os.ReadDir(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(others) || len(entries) < 5 {
		t.Errorf("%d files and %d files (%v)", len(entries), len(others), how)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue // the jobs' records, and times
		}
		x, err := os.ReadFile(filepath.Join(a, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, e.Name()))
		if err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs (%v) after %v", e.Name(), err, how)
		}
	}
	if x, y := recordIn(t, a), recordIn(t, b); !bytes.Equal(x, y) {
		t.Errorf("what was announced differs after %v:\n%q\n%q", how, x, y)
	}
	times, err := os.ReadFile(filepath.Join(b, stage.TimesFolder, trainlog.TimesFileName))
	if n := bytes.Count(times, []byte("\n")); err != nil || n != 60 && n != 40 {
		t.Errorf("times of %d steps (%v), want those of each: %v", n, err, how)
	}
}

// A run that is asked to stop loses no step; a damaged pause file only costs the steps since the last checkpoint.
func TestPauseKeepsEveryStep(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	whole, dir := t.TempDir(), t.TempDir()
	trainWith(t, small(manifest, whole)...)
	flags := small(manifest, dir)
	stopAt(t, 25, 0, dir, flags)
	for _, c := range []struct {
		damage     bool
		stop, from string
	}{{false, "29", "step=25"}, {true, "30", "step=16"}, {false, "32", "step=30"}, {false, "33", "step=32"}} {
		if c.damage {
			truncate(t, pauseFile(t, dir))
		}
		cmd, said := program(t, append(flags, "--stop-at", c.stop)...)
		err, paused := cmd.Run(), regexp.MustCompile(`msg=paused .*step=`+c.stop+"\n")
		if err == nil || !strings.Contains(said.String(), c.from+"\n") || !paused.Match(said.Bytes()) {
			t.Errorf("resuming was to be from %s, until %s (%v):\n%s", c.from, c.stop, err, said)
		}
	}
	trainWith(t, flags...)
	sameFiles(t, whole, dir, []string{"pauses"})
}

func pauseFile(t *testing.T, dir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, ".jobs", "*", "*", "scratch", "pause-*.safetensors"))
	if err != nil || len(found) != 1 {
		t.Fatalf("pause files: %v, %v", found, err)
	}
	return found[0]
}

func truncate(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
}

// Where nothing is left to resume from, training begins anew, and so does its log.
func TestBeginsAnew(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	whole := t.TempDir()
	trainWith(t, small(manifest, whole)...)
	for what, change := range map[string]func(t *testing.T, dir string){
		"a damaged pause file, and no checkpoint": func(t *testing.T, dir string) { truncate(t, pauseFile(t, dir)) },
		"a pause before the first step": func(t *testing.T, dir string) {
			path := pauseFile(t, dir)
			state, err := checkpoint.ReadState(path, filepath.Base(filepath.Dir(filepath.Dir(path))))
			if err != nil {
				t.Fatal(err)
			}
			state.Step = 0
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			_, err = artifact.Keep(vfs.OS, filepath.Dir(path), pauseName,
				func(w io.Writer) error { return checkpoint.WriteState(w, state) })
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			flags := small(manifest, dir)
			stopAt(t, 5, 0, dir, flags)
			change(t, dir)
			trainWith(t, flags...)
			sameFiles(t, whole, dir, []string{what})
		})
	}
}

// A log that is damaged since is not made into an artifact: training begins anew, and so does the log.
func TestADamagedLogIsMadeAgain(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	whole := t.TempDir()
	trainWith(t, small(manifest, whole)...)
	for what, flip := range map[string]struct {
		name string
		at   int // stopped after this step
	}{
		"the log, at a pause": {trainlog.FileName, 5}, "the log, behind a checkpoint": {trainlog.FileName, 20},
		"the digests of the log": {artifact.LengthsName(trainlog.FileName), 20},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			flags := small(manifest, dir)
			cmd, said := program(t, append(flags, "--stop-at", fmt.Sprint(flip.at))...)
			if err := cmd.Run(); err == nil {
				t.Fatalf("it did not stop:\n%s", said)
			}
			path := filepath.Join(filepath.Dir(pauseFile(t, dir)), flip.name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/3] ^= 1
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			cmd, said = program(t, flags...)
			if err := cmd.Run(); err != nil || !strings.Contains(said.String(), "done from its beginning") ||
				!strings.Contains(said.String(), path) {
				t.Errorf("%v:\n%s", err, said)
			}
			sameFiles(t, whole, dir, []string{what})
		})
	}
}

// recordIn is the record of the one training that wrote into a folder.
func recordIn(t *testing.T, dir string) []byte {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, record.OneShot, "*", "*", "record.msgpack"))
	if err != nil || len(found) != 1 {
		t.Fatalf("records: %v, %v", found, err)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A checkpoint that is lost or damaged costs the steps since the one before, and no more. --force begins anew.
func TestTrainingGoesBackBehindADamagedCheckpoint(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	whole, dir := t.TempDir(), t.TempDir()
	trainWith(t, small(manifest, whole)...)
	flags := small(manifest, dir)
	path := func(name string) string { return filepath.Join(dir, name) }
	stopped := func(step int, from string, more ...string) {
		t.Helper()
		cmd, said := program(t, append(append(flags, "--stop-at", fmt.Sprint(step)), more...)...)
		if err := cmd.Run(); err == nil || from == "" && strings.Contains(said.String(), "resuming") ||
			!strings.Contains(said.String(), from) {
			t.Fatalf("stopping at step %d ended with %v, wanted %q:\n%s", step, err, from, said)
		}
	}
	damage := func(name string) {
		t.Helper()
		b, err := os.ReadFile(path(name))
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-3] ^= 1
		if err := os.Remove(path(name)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stopped(50, "")
	damage("step-000048.state.safetensors")
	stopped(51, " step=32\n")
	if err := os.Remove(path("step-000016.safetensors")); err != nil { // the first of three: all are made again
		t.Fatal(err)
	}
	stopped(52, "done again")
	if err := os.Remove(path("step-000048.safetensors")); err != nil {
		t.Fatal(err)
	}
	damage("step-000032.safetensors")
	stopped(53, " step=16\n")
	stopped(54, "", "--force")
	trainWith(t, flags...)
	sameFiles(t, whole, dir, []string{"damage"})
}

// A step that takes minutes is abandoned: what came before it is kept, at once.
func TestARunStopsInTheMiddleOfALongStep(t *testing.T) {
	manifest, dir := writeDataset(t, 16, proverbs()...), t.TempDir()
	cmd, said := program(t, strings.Fields("--in "+manifest+" --out "+dir+
		" --d 256 --layers 4 --heads 4 --ff 512 --batch-tokens 4194304 --micro-tokens 16 --steps 60")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for { // training has begun when there is a log
		if _, err := os.Stat(filepath.Join(dir, trainlog.FileName)); err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s", err, said)
		case <-time.After(time.Millisecond):
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute): // the step takes several
		_ = cmd.Process.Kill()
		t.Fatalf("it goes on:\n%s", <-ended)
	}
	pauseFile(t, dir)
}
