package results

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

func TestTemplates(t *testing.T) {
	body := map[string]any{
		"step": int64(600), "bits": 3.3041, "share": 0.1678, "best": true, "last": false, "name": "text", "none": math.NaN(),
		"zero": uint8(0), "pack": map[string]any{"size": int32(134000)}, "many": 1234567.0,
	}
	for template, want := range map[string]string{
		"checkpoint {step}: {bits:.3} bits/token":         "checkpoint 600: 3.304 bits/token",
		"{share:.1%} and {bits:.0}":                       "16.8 % and 3",
		"{pack.size:bytes}, {many:si}":                    "134.0 kB, 1.23 M",
		"saved[, validation {none:.3}][ (best){best}]":    "saved (best)",
		"saved[ (last){last}][, {absent}][ from {zero}]":  "saved from 0",
		"{absent} {none:.3} {pack.color} {step.nothing}!": "- - - -!",
		"{name}": "text",
		"":       "",
	} {
		if err := Template(template).check("it"); err != nil {
			t.Errorf("%q: %v", template, err)
		}
		if got := Template(template).Text(body); got != want {
			t.Errorf("%q gives %q, want %q", template, got, want)
		}
	}
	for template, want := range map[string]any{
		"{bits:.3}": 3.3041, "{step}": 600.0, "{pack.size:bytes}": 134000.0, "{name}": "text", "{none}": nil, "{absent}": nil,
		"L{step}.H{zero}": "L600.H0", "L{absent}": nil,
	} {
		if got := Template(template).Value(body); got != want {
			t.Errorf("the value of %q is %v, want %v", template, got, want)
		}
	}
	for _, template := range []string{"{step", "step}", "[step", "step]", "{}", "{step:wide}", "{step:.}", "{a{b}}",
		"[{a}", "{:.3}"} {
		if err := Template(template).check("it"); err == nil {
			t.Errorf("%q is taken for a template", template)
		}
	}
}

// A number that is computed of several values is written as each of them.
func TestNumbersOfTemplates(t *testing.T) {
	for template, want := range map[string]string{
		"{bits:.1}": "0.5", "{share:.1%}": "46.9 %", "{steps}": "0.46875", "L{layer}.H{head}": "0.469", "": "0.469",
		"{": "0.469",
	} {
		if got := Template(template).Number(0.46875); got != want {
			t.Errorf("%q gives %q, want %q", template, got, want)
		}
	}
}

func TestDeclarationsAreChecked(t *testing.T) {
	column := Column{Key: "k", Name: "n", Value: "{v}"}
	for want, d := range map[string]Declaration{
		"no kind of event": {Results: []Result{{Kind: "pack"}}},
		"headline of a.b":  {Results: []Result{{Kind: "a.b", Headline: "{"}}},
		"needs a key":      {Results: []Result{{Kind: "a.b", Columns: []Column{{Name: "n", Value: "{v}"}}}}},
		"a name and":       {Results: []Result{{Kind: "a.b", Row: &Column{}}}},
		`better is "more"`: {Results: []Result{
			{Kind: "a.b", Columns: []Column{{Key: "k", Name: "n", Value: "{v}", Better: "more"}}}}},
		"say which is": {Results: []Result{
			{Kind: "a.b", Columns: []Column{{Key: "k", Name: "n", Value: "{v}", Mark: "best"}}}}},
		"its baseline": {Results: []Result{
			{Kind: "a.b", Columns: []Column{{Key: "k", Name: "n", Value: "{v}", Baseline: &Baseline{}}}}}},
		"not a name or not": {Stage: "../up", Results: []Result{{Kind: "a.b", Columns: []Column{column}}}},
	} {
		if err := Declare(journal.Open(t.TempDir()), "r", d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", d, err, want)
		}
	}
}

// declared are the results of three stages: one that saves checkpoints and two that measure them.
func declared() []Declaration {
	return []Declaration{
		{Stage: "train", Answers: "dataset.sealed", Results: []Result{{
			Kind: "checkpoint.saved", Headline: "checkpoint {step} saved",
			Row: &Column{Key: "step", Name: "checkpoint", Value: "{step}"},
			Columns: []Column{{Key: "validation_bits", Name: "validation", Value: "{validation_bits:.3}", Better: Lower,
				Mark: "best", Unless: "blend"}},
		}}},
		{Stage: "evaluate", Answers: "checkpoint.saved", Results: []Result{{
			Kind: "evaluation.written", Headline: "checkpoint {step} evaluated: {bits_per_token:.3}",
			Columns: []Column{{
				Key: "bits_per_token", Name: "bits/token", Value: "{bits_per_token:.3}", Unit: "bits", Better: Lower,
				Error:    "{bits_per_byte:.3}",
				Baseline: &Baseline{Key: "unigram", Name: "unigram", Value: "{unigram_entropy:.3}"},
			}},
		}}},
		{Stage: "count", Answers: "checkpoint.saved", Results: []Result{{
			Kind: "words.counted", Columns: []Column{{Key: "bits_per_token", Name: "words", Value: "{words}", Better: Higher}},
		}}},
	}
}

// history is a journal with a clock of its own.
type history struct {
	t *testing.T
	journal.Journal
	now int64
}

func newHistory(t *testing.T) *history { return &history{t: t, Journal: journal.Open(t.TempDir())} }

// found announces a result of a stage that ran with the given parameters. anew says that the job was done, and not
// answered from its record.
func (h *history) found(body event.Body, input string, params string, anew bool) string {
	h.t.Helper()
	e, err := event.New("r", strings.Split(body.Kind(), ".")[0], digest.Bytes([]byte(body.Kind()+params)), event.Part{},
		body)
	if err != nil {
		h.t.Fatal(err)
	}
	h.now++
	e.Time, e.Input = h.now, input
	if params != "" {
		key, value, _ := strings.Cut(params, "=")
		e.Overrides = map[string]string{key: value}
	}
	write := h.Write
	if anew {
		write = h.Renew
	}
	if _, err := write(e); err != nil {
		h.t.Fatal(err)
	}
	return e.ID
}

func (h *history) checkpoint(step int, bits, blend float64) string {
	model := artifact.Ref{Digest: digest.Bytes([]byte{byte(step)}), Kind: "checkpoint", Name: "m"}
	return h.found(event.CheckpointSaved{Step: step, Model: model, ValidationBits: bits, Blend: blend}, "d", "", true)
}

func evaluation(step int, bits float64) event.EvaluationWritten {
	return event.EvaluationWritten{Step: step, BitsPerToken: bits, BitsPerByte: 0.01, UnigramEntropy: 4.5}
}

func (h *history) table() *Table {
	h.t.Helper()
	tables, err := Read(h.Journal, "r", declared())
	if err != nil || len(tables) != 1 {
		h.t.Fatalf("%d tables, %v", len(tables), err)
	}
	return tables[0]
}

func (h *history) shows(when string, want string) {
	h.t.Helper()
	var out strings.Builder
	if err := h.table().WriteText(&out, 0); err != nil {
		h.t.Fatal(err)
	}
	if got := out.String(); got != strings.TrimPrefix(want, "\n") {
		h.t.Errorf("%s:\n%swant%s", when, got, want)
	}
}

// While the main column has no value, the best row is that of the rows' own main column, and not of whatever else was
// measured first.
func TestTheBestOfARunThatIsNotEvaluatedYet(t *testing.T) {
	h := newHistory(t)
	first, second := h.checkpoint(150, 3.6, 0), h.checkpoint(300, 3.5, 0)
	h.found(event.PackWritten{Step: 7}, first, "", true)
	pack := Declaration{Stage: "pack", Answers: "checkpoint.saved", Results: []Result{{
		Kind: "pack.written", Columns: []Column{{Key: "size", Name: ".bit2", Value: "{step}", Better: Lower}},
	}}}
	best := func() string {
		t.Helper()
		tables, err := Read(h.Journal, "r", append(declared(), pack))
		if err != nil {
			t.Fatal(err)
		}
		row, c := tables[0].Best()
		return row.Name + " by " + c.Key
	}
	if got := best(); got != "300 by validation_bits" {
		t.Errorf("before any evaluation the best is %s", got)
	}
	h.found(evaluation(150, 3.578), first, "", true)
	h.found(evaluation(300, 3.579), second, "", true)
	if got := best(); got != "150 by bits_per_token" {
		t.Errorf("the best is %s", got)
	}
}

// Programs get the standard error of a value beside the value.
func TestRowsForPrograms(t *testing.T) {
	h := newHistory(t)
	h.found(evaluation(150, 3.578), h.checkpoint(150, 3.6, 0), "", true)
	b, err := json.Marshal(h.table().Rows[0])
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"best":true,"bits_per_token":3.578,"bits_per_token_error":0.01,"step":150,` +
		`"unigram":4.5,"validation_bits":3.6}`
	if string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
}

// Measurements with other parameters do not change the run's own results. Of equal results the latest counts.
func TestResultsAreKeyedByTheirParameters(t *testing.T) {
	h := newHistory(t)
	first, second := h.checkpoint(150, 3.6, 0), h.checkpoint(300, 3.5, 0)
	h.found(evaluation(150, 3.578), first, "", true)
	h.found(evaluation(300, 3.444), second, "", true)
	h.shows("at first", `
checkpoint        validation     bits/token  unigram
       150             3.600  3.578 ± 0.010    4.500
       300  best       3.500  3.444 ± 0.010    4.500
`)
	h.found(evaluation(150, 2.032), first, "evaluate.sequences=2", true)
	other := `
checkpoint               validation     bits/token  unigram
       150                    3.600  3.578 ± 0.010    4.500
       150  sequences=2           -  2.032 ± 0.010    4.500
       300  best              3.500  3.444 ± 0.010    4.500
`
	h.shows("after two sequences", other)
	if best, c := h.table().Best(); best.Name != "300" || c.Key != "bits_per_token" {
		t.Errorf("the best is %s by %s", best.Name, c.Key)
	}
	h.found(evaluation(150, 3.578), first, "", false)
	h.shows("after a default rerun", other)
	// The job is done again on another device with other numbers, and then once more with the old numbers.
	h.found(evaluation(150, 3.579), first, "", true)
	h.shows("after another number", strings.Replace(other, "3.578", "3.579", 1))
	h.found(evaluation(150, 3.578), first, "", true)
	h.shows("after the old number again", other)
	// A result of other parameters is a row of its own, even if its numbers are equal.
	h.found(evaluation(150, 3.578), first, "evaluate.sequences=99", true)
	if n := len(h.table().Others); n != 2 {
		t.Errorf("%d rows of other parameters, want 2", n)
	}
	h.found(evaluation(300, 1.5), second, "evaluate.sequences=2", true)
	h.found(evaluation(300, 1.5), second, "", true)
	if got := h.table().Rows[1].Cells["bits_per_token"].Number(); got != 1.5 {
		t.Errorf("the run's own result, equal to one of other parameters, is %g", got)
	}
}

// Stages in other languages and of older versions do not say which event a result answers. Such results are found by
// the checkpoint's digest or step. A result that names its event, and has the run's own parameters, counts more than
// they do.
func TestResultsThatDoNotSayWhatTheyAnswer(t *testing.T) {
	h := newHistory(t)
	first := h.checkpoint(150, 3.6, 0)
	e := evaluation(150, 3.578)
	e.Model = artifact.Ref{Digest: digest.Bytes([]byte{150}), Kind: "checkpoint", Name: "m"}
	h.found(e, "", "", true)
	stranger := e
	stranger.Model.Digest, stranger.BitsPerToken = digest.Bytes([]byte{1}), 9
	h.found(stranger, "", "", true) // of another checkpoint at that step
	counted, err := event.Marshal(map[string]any{"step": 150, "words": 7})
	if err != nil {
		t.Fatal(err)
	}
	w, err := event.Wrap("r", "count", "", event.Part{}, "words.counted", counted)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Write(w); err != nil {
		t.Fatal(err)
	}
	h.shows("by digest and by step", `
checkpoint        validation     bits/token  unigram  words
       150  best       3.600  3.578 ± 0.010    4.500      7
`)
	e.BitsPerToken = 4.032 // an older version mixed them
	h.found(e, "", "", true)
	h.found(evaluation(150, 3.578), first, "", false)
	if got := h.table().Rows[0].Cells["bits_per_token"].Number(); got != 3.578 {
		t.Errorf("a default rerun leaves %g", got)
	}
}

// A checkpoint that was saved again with other bytes has no results until it is measured. A checkpoint with blended
// weights is never the best.
func TestRowsAreTheLatestCheckpoints(t *testing.T) {
	h := newHistory(t)
	first := h.checkpoint(150, 3.0, 0.5)
	h.found(evaluation(150, 3.0), first, "", true)
	second := h.checkpoint(300, 3.5, 0)
	h.found(evaluation(300, 3.4), second, "", true)
	if best, c := h.table().Best(); best.Name != "300" || c.Key != "bits_per_token" || best.Marks[0] != "best" {
		t.Errorf("the best is %+v by %s", best, c.Key)
	}
	again := event.CheckpointSaved{Step: 300, ValidationBits: 3.7,
		Model: artifact.Ref{Digest: digest.Bytes([]byte("again")), Kind: "checkpoint", Name: "m"}}
	h.found(again, "d", "", true)
	if cells := h.table().Rows[1].Cells; len(cells) != 1 || cells["validation_bits"].Number() != 3.7 {
		t.Errorf("the checkpoint that was made again has %+v", cells)
	}
	longer := again
	longer.Step, longer.Model.Digest = 900, digest.Bytes([]byte("longer"))
	id := h.found(longer, "d", "train.steps=900", true)
	e := evaluation(900, 3.1)
	h.found(e, id, "train.steps=900", true)
	table := h.table()
	if len(table.Rows) != 2 || len(table.Others) != 1 || len(table.Others[0].Cells) != 3 {
		t.Errorf("another training gives %d rows and %+v", len(table.Rows), table.Others)
	}
}

func TestATableFitsAWidth(t *testing.T) {
	h := newHistory(t)
	id := h.checkpoint(150, 3.6, 0)
	h.found(evaluation(150, 3.578), id, "", true)
	for width, blocks := range map[int]int{0: 1, 80: 1, 52: 1, 51: 2, 40: 2, 31: 3, 1: 3} {
		var out strings.Builder
		if err := h.table().WriteText(&out, width); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "checkpoint"); n != blocks {
			t.Errorf("%d columns: %d blocks, want %d:\n%s", width, n, blocks, out.String())
		}
		for line := range strings.Lines(out.String()) {
			if width >= 31 && len([]rune(line))-1 > width {
				t.Errorf("%d columns: %q is longer", width, line)
			}
		}
		for _, text := range []string{"3.600", "3.578", "4.500"} {
			if strings.Count(out.String(), text) != 1 {
				t.Errorf("%d columns: %s is not there once:\n%s", width, text, out.String())
			}
		}
	}
}

func TestDeclarationsAreKeptWithTheRun(t *testing.T) {
	h := newHistory(t)
	started := event.RunStarted{Pipeline: "p", Stages: []string{"train", "old", "evaluate"}}
	h.found(started, "", "", true)
	for _, d := range declared() {
		if err := Declare(h.Journal, "r", d); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(stage string) (Declaration, bool) {
		return Declaration{Results: []Result{{Kind: stage + ".made"}}}, stage == "old"
	}
	all, err := Declared(h.Journal, "r", ask)
	var names []string
	for _, d := range all {
		names = append(names, d.Stage)
	}
	if err != nil || strings.Join(names, " ") != "train old evaluate count" {
		t.Errorf("%v, %v", names, err)
	}
	e, err := event.New("r", "evaluate", "", event.Part{}, evaluation(150, 3.5781))
	if err != nil {
		t.Fatal(err)
	}
	e.Overrides = map[string]string{"evaluate.sequences": "2", "probe.sequences": "3", "train.steps": "9",
		"evaluate.task_digests": "blimp=" + strings.Repeat("12ab", 16)}
	want := "checkpoint 150 evaluated: 3.578 (with evaluate.sequences=2 task_digests=blimp=12ab12ab12ab " +
		"probe.sequences=3 steps=9)"
	if got := Headline(all, e); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	body, err := Body(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := Of(all, e)
	if got := strings.Join(r.Lines(body), "|"); got != "bits/token  3.578 ± 0.010 bits  (unigram 4.500)" {
		t.Errorf("lines %q", got)
	}
}

// A stage may answer the events of a stage that measures checkpoints. Its results stand in the row of the same
// checkpoint.
func TestResultsOfResults(t *testing.T) {
	h := newHistory(t)
	first, second := h.checkpoint(150, 3, 0), h.checkpoint(300, 2, 0)
	h.found(event.ProbeWritten{Step: 1, TopIPMR: 0.5}, h.found(evaluation(0, 3.5), first, "", false), "", false)
	h.found(event.ProbeWritten{Step: 2, TopIPMR: 0.25}, h.found(evaluation(0, 3.25), second, "", false), "", false)
	verdict := Declaration{Stage: "verdict", Answers: "evaluation.written", Results: []Result{{
		Kind: "probe.written", Columns: []Column{{Key: "sure", Name: "sure", Value: "{top_ipmr:.2}"}},
	}}}
	tables, err := Read(h.Journal, "r", append([]Declaration{verdict}, declared()...)) // the order of stages is for people
	if err != nil || len(tables) != 1 {
		t.Fatal(tables, err)
	}
	for i, want := range []float64{0.5, 0.25} {
		if r := tables[0].Rows[i]; r.Cells["sure"].Number() != want {
			t.Errorf("row %s: %v, want %v", r.Name, r.Cells["sure"], want)
		}
	}
}

// The legend explains every column, and fits into narrow terminals.
func TestLegend(t *testing.T) {
	table := &Table{
		Row: Column{Name: "checkpoint", About: "optimizer steps taken"},
		Columns: []Column{
			{Name: "validation", Unit: "bits/token", Better: Lower, Mark: "best",
				About: "loss on the trainer's sample of the validation text"},
			{Name: "IPMR", Error: "{e}", Better: Higher, About: "how often that head points at the token " +
				"after an earlier occurrence"},
			{Name: "bits", Unit: "bits/token", About: "loss in bits/token"}, {Name: "unsaid"},
		},
	}
	for width, want := range map[int]string{
		0: "checkpoint  optimizer steps taken\n" +
			"validation  loss on the trainer's sample of the validation text (bits/token; lower is better; " +
			"\"best\" marks the row)\n" +
			"IPMR        how often that head points at the token after an earlier occurrence (± standard " +
			"error; higher is better)\n" +
			"bits        loss in bits/token\n",
		50: "checkpoint  optimizer steps taken\n" +
			"validation  loss on the trainer's sample of the\n            validation text (bits/token; lower is\n" +
			"            better; \"best\" marks the row)\n" +
			"IPMR        how often that head points at the\n            token after an earlier occurrence (±\n" +
			"            standard error; higher is better)\n" +
			"bits        loss in bits/token\n",
	} {
		var out strings.Builder
		if err := table.WriteLegend(&out, width); err != nil || out.String() != want {
			t.Errorf("width %d (%v):\n%s\nwant\n%s", width, err, &out, want)
		}
	}
}

// A stage is described by the file beside its program, in any folder that the command names, and otherwise by the
// program.
func TestDescriptions(t *testing.T) {
	bin, scripts := t.TempDir(), t.TempDir()
	write := func(path, content string, mode os.FileMode) {
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(bin, "says"), "#!/bin/sh\n[ \"$1 $2\" = 'x describe' ] && echo asked || { echo 'not "+
		"like that' >&2; exit 1; }\n", 0o755)
	write(filepath.Join(scripts, "count.py"), "", 0o644)
	write(filepath.Join(scripts, "count.json"),
		`{"name":"count","kind":"checkpoint.saved","results":[{"kind":"words.counted","headline":"{n}"}]}`, 0o644)
	for want, command := range map[string][]string{
		"asked":           {filepath.Join(bin, "says"), "x"},
		`{"name":"count"`: {"python3", filepath.Join(scripts, "count.py"), "--fast"},
	} {
		got, err := Describe(t.Context(), "count", command...)
		if err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%v: %s, %v", command, got, err)
		}
	}
	if _, err := Describe(t.Context(), "count", filepath.Join(bin, "says")); err == nil || err.Error() != "not like that" {
		t.Errorf("a program that fails: %v", err)
	}
	if d, ok := Ask(scripts)("count"); !ok || d.Answers != "checkpoint.saved" || d.Results[0].Headline != "{n}" {
		t.Errorf("%+v", d)
	}
	if d, ok := Ask(scripts)("other"); ok {
		t.Errorf("nothing describes it, and yet %+v", d)
	}
}
