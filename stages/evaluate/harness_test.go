package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/pythontest"
	"bitnet1/stages/evaluate/tasks"
)

// asModel is the environment variable that makes the test binary the model of testdata/harness.py: the checkpoint whose
// path it holds.
const asModel = "BITNET1_TEST_AS_MODEL"

// serveModel answers what lm-evaluation-harness asks of a model, a sequence at a time.
func serveModel(path string, in io.Reader, out io.Writer) error {
	f, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	m, settings, err := f.Inference(cpu.New(cpu.Options{}), 1, 0)
	if err != nil {
		return err
	}
	text, err := tokenizer.New(f.Tokenizer)
	if err != nil {
		return err
	}
	answer := json.NewEncoder(out)
	if err := answer.Encode(map[string]any{"end_of_text": text.EndOfText(), "context": f.Config.Seq}); err != nil {
		return err
	}
	for questions := json.NewDecoder(in); ; {
		var q struct {
			Text         *string `json:"text"`
			IDs          []int32 `json:"ids"`
			Continuation int     `json:"continuation"`
		}
		err := questions.Decode(&q)
		if err == io.EOF {
			return nil
		}
		if err == nil && q.Text != nil {
			err = answer.Encode(append([]uint32{}, text.Encode(nil, []byte(*q.Text))...))
		} else if err == nil {
			var said []any
			if said, err = likelihood(m, settings, q.IDs, q.Continuation); err == nil {
				err = answer.Encode(said)
			}
		}
		if err != nil {
			return err
		}
	}
}

// likelihood is the log-likelihood of the last n of ids, and whether they are the greedy continuation.
func likelihood(m *model.Model, s model.Settings, ids []int32, n int) ([]any, error) {
	seq := m.Config().Seq
	tokens, targets := make([]int32, seq), slices.Repeat([]int32{-1}, seq)
	copy(tokens, ids[:len(ids)-1])
	copy(targets[len(ids)-1-n:], ids[len(ids)-n:])
	losses, err := m.Losses(tokens, targets, s)
	if err != nil {
		return nil, err
	}
	sum, greedy := 0.0, true
	for _, loss := range losses {
		sum -= float64(loss)
	}
	for i := len(ids) - 1 - n; i < len(ids)-1 && greedy; i++ {
		logits, err := m.Logits(tokens, i, i+1, s)
		if err != nil {
			return nil, err
		}
		greedy = slices.Index(logits, slices.Max(logits)) == int(targets[i])
	}
	return []any{sum, greedy}, nil
}

// Scores are, to the last digit, those that lm-evaluation-harness gives the same model: its definitions of the tasks,
// its prompts, its tokens of contexts and continuations, its truncation and its metrics, over rows in the forms of the
// datasets that it reads.
func TestScoresAreThoseOfTheHarness(t *testing.T) {
	python := pythontest.Interpreter(t, "lm_eval", "datasets")
	c := measuretest.Config(64)
	c.Vocab = 50304
	path := measuretest.Checkpoint(t, c, checkpoint.Provenance{Step: 7, Tokenizer: "gpt2", Gamma: 0.3, Mix: 1})
	ours, folder := map[string]map[string]tasks.Score{}, t.TempDir()
	flags := []string{"--in", path, "--out", filepath.Join(folder, "out")}
	for task, rows := range madeUp() {
		file := filepath.Join(folder, task+".jsonl")
		write(t, file, rows...)
		flags = append(flags, "--tasks", task+"="+file)
	}
	measuretest.Run(t, flags...)
	var report tasksReport
	measuretest.ReadJSON(t, filepath.Join(folder, "out", "step-000007_tasks.json"), &report)
	truncated := 0
	for _, r := range report.Tasks {
		truncated += r.Truncated
		ours[r.Task] = map[string]tasks.Score{}
		for _, s := range r.Scores {
			ours[r.Task][s.Metric] = s
		}
	}
	if truncated == 0 {
		t.Error("no context is longer than the model reads: make one longer")
	}
	compare(t, ours, harness(t, python, path, folder))
}

// harness returns the results of lm-evaluation-harness.
func harness(t *testing.T, python, path, folder string) map[string]map[string]any {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, filepath.Join("testdata", "harness.py"), folder, self)
	cmd.Env = append(os.Environ(), asModel+"="+path)
	out, err := cmd.Output()
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		t.Fatalf("harness.py: %v\n%s", err, failed.Stderr[max(0, len(failed.Stderr)-2000):])
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var theirs map[string]map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &theirs); err != nil {
		t.Fatalf("harness.py: %v in %s", err, out)
	}
	return theirs
}

func compare(t *testing.T, ours map[string]map[string]tasks.Score, theirs map[string]map[string]any) {
	t.Helper()
	compared := 0
	for task, metrics := range theirs {
		for name, value := range metrics {
			metric, isValue := strings.CutSuffix(name, ",none")
			want, isNumber := value.(float64)
			if !isValue || !isNumber || metric == "perplexity_stderr" { // the harness's is a bootstrap's
				continue
			}
			metric, isError := strings.CutSuffix(metric, "_stderr")
			score, ok := ours[task][metric]
			got := score.Value
			if isError && ok {
				got = *score.Error
			}
			// exp of Python and of Go differ in the last bit
			if !ok || got != want && !(metric == tasks.Perplexity && math.Abs(got-want) < 4e-16*want) {
				t.Errorf("%s, %s: %v, the harness has %v", task, name, got, want)
			}
			compared++
		}
	}
	if want := 2*len(theirs) + 2*5 + 1; compared != want { // acc and its error; acc_norm; perplexity
		t.Errorf("%d values were compared, want %d", compared, want)
	}
}

// write writes rows as JSON Lines.
func write(t *testing.T, path string, rows ...any) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for _, r := range rows {
		if err := lines.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// madeUp are rows of every task in the forms that the harness reads, with all that its definitions look at: marks to
// take out, double spaces, capitals, letters of several bytes, contexts that end with white space or are too long.
func madeUp() map[string][]any {
	type row = map[string]any
	all := map[string][]any{}
	words := []string{"river", "Wörter", "the moon", "salt", "A goat", "ship’s bell", "seven", "Her", "light"}
	pick := func(i int) string { return words[i%len(words)] }
	for i := range 20 {
		a, b, c, d := pick(i), pick(i*i+3), pick(2*i+5), pick(i/2+7)
		long := strings.Repeat(a+" and ", i*i/20)
		choices := row{"text": []string{a, b + " of " + c, d + ".", c + "!"}, "label": []string{"A", "B", "C", "D"}}
		letter := string(rune('A' + i%4))
		all["lambada"] = append(all["lambada"], row{"text": long + "\n" + b + " saw " + c + "  " + d})
		all["blimp"] = append(all["blimp"], row{"sentence_good": a + " is " + b + ".", "sentence_bad": a + " are " + d + "."})
		all["hellaswag"] = append(all["hellaswag"], row{
			"activity_label": a, "ctx_a": " " + long + b + " [header] falls.", "ctx_b": "ÄND then " + c + " [title] Rises",
			"endings": []string{" in  " + d, "[substeps] " + a, "over " + b + ". [title] " + c, d},
			"label":   fmt.Sprint(i % 4)})
		question := row{"question": long + "What is " + b + "?", "choices": choices, "answerKey": letter}
		all["arc_easy"], all["arc_challenge"] = append(all["arc_easy"], question), append(all["arc_challenge"], question)
		all["openbookqa"] = append(all["openbookqa"],
			row{"question_stem": "They saw " + b + strings.Repeat(" ", i%3), "choices": choices, "answerKey": " " + letter})
		all["piqa"] = append(all["piqa"], row{"goal": a + " with " + b, "sol1": c, "sol2": d + " and " + a, "label": i % 2})
		all["boolq"] = append(all["boolq"], row{"passage": long + b, "question": "is " + c + " " + d, "label": i / 2 % 2})
		all["commonsense_qa"] = append(all["commonsense_qa"], row{"question": " Where is " + a + "? ", "answerKey": letter,
			"choices": row{"text": []string{a, b, c, d, "none"}, "label": []string{"A", "B", "C", "D", "E"}}})
		all["copa"] = append(all["copa"], row{"premise": strings.ToUpper(a) + " fell. ", "choice1": "The " + b + " 1.",
			"choice2": "A " + c + " 2.", "question": []string{"cause", "effect"}[i%2], "label": i / 3 % 2})
		all["winogrande"] = append(all["winogrande"], row{"sentence": long + a + " met " + b + " because _ was " + c + ".",
			"option1": a, "option2": b, "answer": fmt.Sprint(1 + i%2)})
		before := []string{"The " + a + " hit  " + b + ". ", "When it rained, "}[i%2]
		pronoun := []string{"It", "his"}[i/2%2]
		all["wsc273"] = append(all["wsc273"], row{"text": before + pronoun + " " + c + " broke.", "pronoun": pronoun,
			"pronoun_loc": len([]rune(strings.ReplaceAll(before, "  ", " "))), "options": []string{"The " + a, "Her  " + b},
			"label": i % 2})
	}
	return all
}
