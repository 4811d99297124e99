package examples

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"bitnet1/shared/processtest"
	"bitnet1/shared/pythontest"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// verdict is what watch.py announces, as a stage in Go would declare it.
type verdict struct {
	Step   int     `msgpack:"step"`
	Gain   float64 `msgpack:"gain"`
	Learnt bool    `msgpack:"learnt"`
}

func (verdict) Kind() string     { return "verdict.written" }
func (verdict) Inputs() []string { return nil }

// TestAStageInAnotherLanguage lets the script hear an event from a real server and checks what it announces with the
// code that any stage of ours uses.
func TestAStageInAnotherLanguage(t *testing.T) {
	interpreter := pythontest.Interpreter(t, "nats", "msgpack")
	server, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	b, err := bus.Connect(t.Context(), server.Address(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	out, err := exec.Command(interpreter, "watch.py", "describe").Output()
	if err != nil {
		t.Fatal(err)
	}
	var d stage.Description
	if err := json.Unmarshal(out, &d); err != nil || d.Name != "watch" || d.Kind != "evaluation.written" ||
		len(d.Emits) != 1 {
		t.Fatalf("describe: %+v, %v", d, err)
	}
	// As the launcher does: the consumer first, then the stage.
	if _, err := b.Listen(t.Context(), bus.Listener{Stage: d.Name, Run: "r", Kind: d.Kind}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter, "watch.py", "serve", "--run", "r")
	cmd.Env = append(append(os.Environ(), server.Address().Environ()...), command.EnvLauncher+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	for i, bits := range []float64{3.25, 12} {
		e, err := event.New("r", "evaluate", "", event.Part{Index: i, Count: 2},
			event.EvaluationWritten{Step: 10 * i, BitsPerToken: bits, UnigramEntropy: 9.5})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	verdicts, answered := heard[verdict](t, b, 2), heard[event.JobFinished](t, b, 2)
	for i, want := range []verdict{{0, 6.25, true}, {10, -2.5, false}} {
		if verdicts[i] != want {
			t.Errorf("%+v, want %+v", verdicts[i], want)
		}
		if answered[i].Listener != "watch" || answered[i].Outcome != event.Done || len(answered[i].Input) != 64 {
			t.Errorf("answer %+v", answered[i])
		}
	}
	// It ends with its launcher.
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, stderr.String())
	}
}

// Started before any launcher has made the streams, the script waits for them.
func TestAStageThatIsStartedFirst(t *testing.T) {
	interpreter := pythontest.Interpreter(t, "nats", "msgpack")
	server, err := bus.StartServer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	a := server.Address()
	conn, err := nats.Connect(a.URL, nats.UserInfo(a.User, a.Password))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked, err := conn.SubscribeSync("$JS.API.CONSUMER.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter, "watch.py", "serve", "--run", "r")
	cmd.Env = append(os.Environ(), a.Environ()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if _, err := asked.NextMsg(processtest.Patience); err != nil {
		t.Fatalf("the script never asked for its consumer: %v %s", err, stderr.String())
	}
	b, err := bus.Connect(t.Context(), a, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	e, err := event.New("r", "evaluate", "", event.Part{},
		event.EvaluationWritten{Step: 5, BitsPerToken: 1, UnigramEntropy: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got := heard[verdict](t, b, 1)[0]; got != (verdict{5, 1, true}) {
		t.Errorf("%+v", got)
	}
}

// heard waits for n events of B's kind.
func heard[B event.Body](t *testing.T, b *bus.Bus, n int) []B {
	t.Helper()
	var zero B
	for began := time.Now(); time.Since(began) < processtest.Patience; time.Sleep(20 * time.Millisecond) {
		events, bad, err := b.History(t.Context(), "r", zero.Kind(), 0)
		if err != nil || bad > 0 {
			t.Fatalf("%d events are not valid, %v", bad, err)
		}
		if len(events) < n {
			continue
		}
		var bodies []B
		for _, e := range events {
			body, err := event.Into[B](e.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, body)
		}
		return bodies
	}
	t.Fatalf("%s never came", zero.Kind())
	return nil
}
