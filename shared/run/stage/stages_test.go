package stage

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

// The tests of this package start the test binary as the program of a stage. So a test can kill the program, and the
// program runs as a user's stage does.

// asStage names the stage that the test binary is to be.
const asStage = "BITNET1_TEST_STAGE"

func TestMain(m *testing.M) {
	gateFiles()
	switch os.Getenv(asStage) {
	case "shout":
		os.Exit(leakless(Main(shout(), os.Args)))
	case "climb":
		os.Exit(leakless(Main(climb(), os.Args)))
	case "collect":
		os.Exit(leakless(Main(collect(), os.Args)))
	case "look":
		os.Exit(leakless(Main(look(), os.Args)))
	case "pair":
		os.Exit(leakless(Main(pair(), os.Args)))
	}
	goleak.VerifyTestMain(m)
}

const leaked = 99

// leakless returns another exit status if goroutines outlive Main. It does not check the stages of a launcher, because
// their goroutine that reads standard input cannot be ended.
func leakless(status int) int {
	if os.Getenv(command.EnvLauncher) != "" {
		return status
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return leaked
	}
	return status
}

// testParams say how the test stages behave.
type testParams struct {
	Trace   string `json:"trace" usage:"file that gets a line whenever a job is begun or ended"`
	Mode    string `json:"mode" usage:"work, wait, stay, fail, refuse, panic, die or lose"`
	Times   int    `json:"times" usage:"how often to do so before working; 0: always"`
	Release string `json:"release" usage:"modes wait and stay: the file whose appearance ends them"`
	Only    string `json:"only" usage:"name of the one source that this is about"`
	Layers  []int  `json:"layers" usage:"nothing"`
}

func (p testParams) check() error {
	for _, mode := range []string{"work", "wait", "stay", "fail", "refuse", "panic", "die", "lose"} {
		if p.Mode == mode {
			return nil
		}
	}
	return fmt.Errorf("mode %q: use work, wait, stay, fail, refuse, panic, die or lose", p.Mode)
}

// shout is a stage that answers each source with its name in capitals.
func shout() Spec[testParams, event.SourceAdded] {
	return Spec[testParams, event.SourceAdded]{
		Name: "shout", About: "writes names in capitals", Example: "shout run --in a.txt --out loud", Version: "1",
		Defaults: testParams{Mode: "work", Layers: []int{0}}, Check: testParams.check,
		Work: func(ctx context.Context, job *Job[testParams], in event.SourceAdded) error {
			if err := behave(ctx, job, in.Name); err != nil {
				return err
			}
			ref, err := writeText(job, in.Name+".loud", strings.ToUpper(in.Name))
			if err != nil {
				return err
			}
			return job.Emit(ctx, event.TokensWritten{Source: in.Name, Batch: ref})
		},
		Files: func(in *Files) ([]event.SourceAdded, error) {
			var all []event.SourceAdded
			for _, file := range in.In {
				ref, err := in.Add("source", "text/plain", file)
				if err != nil {
					return nil, err
				}
				all = append(all, event.SourceAdded{Name: ref.Name, Digest: ref.Digest, Size: ref.Size})
			}
			return all, nil
		},
		Emits: []event.Body{event.TokensWritten{}},
	}
}

// collect is a stage that gathers what shout wrote.
func collect() Spec[testParams, event.TokensWritten] {
	return Spec[testParams, event.TokensWritten]{
		Name: "collect", About: "joins what was written", Example: "collect run --run RUN", Version: "1",
		Defaults: testParams{Mode: "work"}, Check: testParams.check,
		Gather: func(ctx context.Context, job *Job[testParams], in []event.TokensWritten) error {
			if err := behave(ctx, job, "all"); err != nil {
				return err
			}
			var text strings.Builder
			for _, e := range in {
				b, err := readText(job, e.Batch)
				if err != nil {
					return err
				}
				text.Write(append(b, ' '))
			}
			ref, err := writeText(job, "all.txt", text.String())
			if err != nil {
				return err
			}
			return job.Emit(ctx, event.DatasetSealed{Manifest: ref, Documents: int64(len(in))})
		},
		Emits: []event.Body{event.DatasetSealed{}},
	}
}

// climb is a stage that answers a source in three steps, each with an output. It behaves as told in the middle of the
// second one, and continues where it was.
func climb() Spec[testParams, event.SourceAdded] {
	s := shout()
	s.Name, s.Example = "climb", "climb run --in a.txt --out steps"
	s.Work = func(ctx context.Context, job *Job[testParams], in event.SourceAdded) error {
		before, err := Emitted[event.TokensWritten](job)
		if err != nil {
			return err
		}
		live, err := job.LiveFile("climb.log")
		if err != nil {
			return err
		}
		for step := len(before) + 1; step <= 3; step++ {
			trace(live, fmt.Sprint("step ", step))
			if step == 2 {
				if err := behave(ctx, job, in.Name); err != nil {
					return err
				}
			}
			ref, err := writeText(job, fmt.Sprintf("%s.step%d", in.Name, step), strings.Repeat("x", step))
			if err != nil {
				return err
			}
			if err := job.Emit(ctx, event.TokensWritten{Source: in.Name, Batch: ref, Documents: int64(step)}); err != nil {
				return err
			}
		}
		b, err := os.ReadFile(live)
		if err != nil {
			return err
		}
		ref, err := writeText(job, "climb.log", string(b))
		if err != nil {
			return err
		}
		return job.Emit(ctx, event.DatasetSealed{Manifest: ref})
	}
	return s
}

// look is a stage that answers a checkpoint with the content of its dataset.
func look() Spec[testParams, event.CheckpointSaved] {
	return Spec[testParams, event.CheckpointSaved]{
		Name: "look", About: "shows a checkpoint its dataset", Example: "look run --run RUN", Version: "1",
		Defaults: testParams{Mode: "work"}, Check: testParams.check,
		Work: func(ctx context.Context, job *Job[testParams], in event.CheckpointSaved) error {
			b, err := readText(job, in.Manifest)
			if err != nil {
				return err
			}
			ref, err := writeText(job, "seen.txt", "seen: "+string(b))
			if err != nil {
				return err
			}
			return job.Emit(ctx, event.PackWritten{Step: in.Step, Model: in.Model, Pack: ref})
		},
		Files: Checkpoints, OnDataset: OnDataset, Choice: ByStep(), Threads: true, Device: true,
		Emits: []event.Body{event.PackWritten{}},
	}
}

// pair is a stage that answers a source with two outputs, and continues after those that it has.
func pair() Spec[testParams, event.SourceAdded] {
	s := shout()
	s.Name, s.Example = "pair", "pair run --in a.txt --out pairs"
	s.Work = func(ctx context.Context, job *Job[testParams], in event.SourceAdded) error {
		before, err := Emitted[event.TokensWritten](job)
		if err != nil {
			return err
		}
		for n := len(before) + 1; n <= 2; n++ {
			ref, err := writeText(job, fmt.Sprintf("%s.%d", in.Name, n), strings.Repeat("x", n))
			if err != nil {
				return err
			}
			if err := job.Emit(ctx, event.TokensWritten{Source: in.Name, Batch: ref, Documents: int64(n)}); err != nil {
				return err
			}
		}
		return nil
	}
	return s
}

// behave behaves as the parameters say for the given source.
func behave(ctx context.Context, job *Job[testParams], name string) error {
	p := job.Params
	begun := trace(p.Trace, "begin "+name)
	defer trace(p.Trace, "end "+name)
	if p.Only != "" && p.Only != name || p.Times > 0 && begun > p.Times {
		return nil
	}
	job.Progress(Progress{Done: 1, Total: 2, Unit: "words"})
	switch p.Mode {
	case "wait":
		return waitFor(ctx, p.Release)
	case "stay": // whatever is asked of it
		return waitFor(context.WithoutCancel(ctx), p.Release)
	case "fail":
		return fmt.Errorf("%s failed for the %d. time", name, begun)
	case "refuse":
		return Permanentf("%s is no good", name)
	case "panic":
		panic("confused by " + name)
	case "die":
		os.Exit(3)
	case "lose":
		return fmt.Errorf("step 7: %w", lostDevice{})
	}
	return nil
}

// lostDevice is an error after which the process can do no other job.
type lostDevice struct{}

func (lostDevice) Error() string { return "the device is lost" }
func (lostDevice) Unfit() bool   { return true }

func waitFor(ctx context.Context, file string) error {
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// trace appends a line and returns how often it is in the file.
func trace(path, line string) int {
	if path == "" {
		return 0
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 0
	}
	fmt.Fprintln(f, line)
	f.Close()
	b, _ := os.ReadFile(path)
	return strings.Count("\n"+string(b), "\n"+line+"\n")
}

func writeText(job *Job[testParams], name, text string) (artifact.Ref, error) {
	return artifact.Put(job, "text", "text/plain", name, []byte(text))
}

func readText(job *Job[testParams], ref artifact.Ref) ([]byte, error) {
	path, err := job.Path(ref)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}
