package server

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/pythontest"
)

// runPython runs a program, which must succeed.
func runPython(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	hung := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
	defer hung.Stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Programs that use OpenAI's client need only another address.
func TestOpenAIClient(t *testing.T) {
	interpreter := pythontest.Interpreter(t, "openai")
	c := start(t, Options{Token: "secret"})
	free := startModel(t, c.model, Options{})
	want := free.text(body{"prompt": "Once upon", "max_tokens": 12, "temperature": 0})
	runPython(t, exec.Command(interpreter, "testdata/client.py", c.url, "secret", want))
}

// The program that docs/api.md shows works.
func TestProgramOfThePage(t *testing.T) {
	interpreter := pythontest.Interpreter(t, "openai")
	c := start(t, Options{})
	page, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(page), "```python\n")
	program, _, _ := strings.Cut(after, "```")
	program = strings.NewReplacer("http://127.0.0.1:8000", c.url, "step-000600", "small").Replace(program)
	runPython(t, exec.Command(interpreter, "-c", program))
	if n := c.value("bitnet1_api_written_tokens_total"); n != 20 {
		t.Errorf("%v tokens were written", n)
	}
}

// The page does what people want of it, on screens of any width, without a mouse, and without any other host.
func TestPage(t *testing.T) {
	interpreter := pythontest.Interpreter(t, "playwright")
	if _, err := exec.LookPath("chromium"); err != nil {
		if _, err := exec.LookPath("google-chrome"); err != nil {
			t.Skip("there is neither chromium nor google-chrome")
		}
	}
	c := startModel(t, open(t, saved(t, measuretest.Config(30_000).V76())), Options{})
	short := startModel(t, open(t, saved(t, measuretest.Config(64).V76())), Options{Token: "secret"})
	_, b := c.post("/v1/chat/completions", body{"messages": []body{{"role": "user", "content": "Hello"}}, "max_tokens": 40,
		"seed": 5, "temperature": 1})
	want, err := json.Marshal(decodeAs[chatCompletion](t, b).Choices[0].Message.Content)
	if err != nil {
		t.Fatal(err)
	}
	runPython(t, exec.Command(interpreter, "testdata/page.py", c.url, short.url, "secret", string(want)))
	wait(t, "the text that was stopped has ended", func() bool { return len(c.inside) == 0 })
	if n := c.value("bitnet1_api_written_tokens_total"); n > 15_000 {
		t.Errorf("%v tokens were written, though the text was stopped", n)
	}
}

// lm-evaluation-harness measures the model with tasks in local files, and its scores follow from the model's own
// probabilities.
func TestHarness(t *testing.T) {
	interpreter := pythontest.Interpreter(t, "lm_eval", "aiohttp", "tenacity", "requests", "tqdm", "datasets")
	c := start(t, Options{})
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS("testdata/harness")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter, "-m", "lm_eval", "--model", "local-completions", "--model_args",
		"model=small,base_url="+c.url+"/v1/completions,max_length=512", "--batch_size", "4", "--include_path", ".",
		"--tasks", "pairs,questions,words,written", "--output_path", "out", "--log_samples")
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "HF_HUB_OFFLINE=1", "HF_DATASETS_OFFLINE=1", "HF_HOME="+filepath.Join(folder, "home"))
	runPython(t, cmd)
	const end = 256
	for _, sample := range samples(t, folder, "words") {
		context, word := sample.Arguments["gen_args_0"].Context, sample.Arguments["gen_args_0"].Continuation
		c.compare(sample.Resps[0][0], append([]int32{}, c.model.Encode(context)...), word)
	}
	for _, sample := range samples(t, folder, "pairs") {
		for i, r := range sample.Resps {
			c.compare(r[0], []int32{end}, sample.Arguments["gen_args_"+string(rune('0'+i))].Continuation)
		}
	}
}

// sample is what the harness logs of a question: its requests, and what the model answered, the sum of logarithms and
// whether the continuation is the most probable one.
type sample struct {
	Arguments map[string]struct {
		Context      string `json:"arg_0"`
		Continuation string `json:"arg_1"`
	} `json:"arguments"`
	Resps [][][2]json.RawMessage `json:"resps"`
}

func samples(t *testing.T, folder, task string) (all []sample) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "out", "small", "samples_"+task+"_*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatalf("samples of %s: %v, %v", task, files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		all = append(all, decodeAs[sample](t, []byte(line)))
	}
	if len(all) != 3 {
		t.Fatalf("%d samples of %s", len(all), task)
	}
	return all
}

// compare compares what the harness has of a continuation with what the model says of it.
func (c *client) compare(response [2]json.RawMessage, context []int32, continuation string) {
	c.Helper()
	tokens := slices.Concat(context, c.model.Encode(continuation))
	g, err := c.model.NewGenerator()
	if err != nil {
		c.Fatal(err)
	}
	sum, greedy := 0.0, true
	err = g.Score(c.Context(), tokens, func(i int, logits []float32) error {
		if i+1 >= len(context) && i+1 < len(tokens) {
			top, total := float64(slices.Max(logits)), 0.0
			for _, l := range logits {
				total += math.Exp(float64(l) - top)
			}
			sum += float64(logits[tokens[i+1]]) - top - math.Log(total)
			greedy = greedy && logits[tokens[i+1]] == slices.Max(logits)
		}
		return nil
	})
	if err != nil {
		c.Fatal(err)
	}
	got := decodeAs[float64](c, unquoted(response[0]))
	if math.Abs(got-sum) > 1e-9 || (string(unquoted(response[1])) == "True") != greedy {
		c.Errorf("%q: the harness has %s, %s, the model says %v, %v", continuation, response[0], response[1], sum, greedy)
	}
}

// unquoted is a value that the harness may log as a text.
func unquoted(b json.RawMessage) []byte { return []byte(strings.Trim(string(b), `"`)) }
