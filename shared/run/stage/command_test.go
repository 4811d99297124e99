package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

func TestOneShotFromFilesToAFolder(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		writeFile(t, filepath.Join(dir, name), name)
	}
	out := filepath.Join(dir, "out")
	for _, files := range [][]string{
		{"--in", filepath.Join(dir, "a"), filepath.Join(dir, "b")}, // as a shell's pattern gives them
		{"--in", filepath.Join(dir, "a"), "--in", filepath.Join(dir, "b")},
		{"--in=" + filepath.Join(dir, "a"), filepath.Join(dir, "b")},
	} {
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		status, stdout, stderr := w.run("shout", append(append([]string{"run"}, files...), "--out", out)...)
		if status != command.Done {
			t.Fatalf("%v: status %d: %s", files, status, stderr)
		}
		wantText(t, "output", stdout, "tokens.written\n  "+filepath.Join(out, "a.loud"), filepath.Join(out, "b.loud"))
		for name, want := range map[string]string{"a.loud": "A", "b.loud": "B"} {
			if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(b) != want {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
		if entries, err := os.ReadDir(out); err != nil || len(entries) != 2+1 { // and the jobs' records, out of sight
			t.Errorf("the folder holds %v, %v", entries, err)
		}
	}
	if _, err := os.Stat(w.data); err == nil {
		t.Error("a one-shot run made a data directory")
	}
}

func TestOneShotMayFailAsOftenAsItsUserTries(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	in := filepath.Join(t.TempDir(), "a")
	writeFile(t, in, "")
	out := filepath.Join(t.TempDir(), "out")
	for try := 1; try <= 7; try++ {
		status, stdout, stderr := w.run("shout", "run", "--in", in, "--out", out, "--trace", w.trace, "--mode", "fail",
			"--times", "6")
		if want := map[bool]int{true: command.Failed, false: command.Done}[try <= 6]; status != want {
			t.Fatalf("try %d: status %d, want %d: %s", try, status, want, stderr)
		}
		if try <= 6 {
			wantText(t, "error", stderr, fmt.Sprintf("shout: a failed for the %d. time", try))
			if stdout != "" {
				t.Errorf("a failed run prints %q", stdout)
			}
		}
	}
}

// Many one-shots write into one folder at once, and some of them do the same job. None removes files that another
// needs.
func TestOneShotsShareAnOutputFolder(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	start := func(stage, name string, args ...string) *program {
		in := filepath.Join(dir, name)
		writeFile(t, in, name)
		return w.start(w.command(stage, append([]string{"run", "--in", in, "--out", out}, args...)...))
	}
	long := start("climb", "long", "--mode", "wait", "--release", w.release, "--trace", w.trace)
	w.begun(1)
	var short []*program
	for i := range 24 {
		short = append(short, start("shout", fmt.Sprint("text", i%8)))
	}
	for _, p := range short {
		if p.status() != command.Done {
			t.Errorf("a one-shot failed: %s", p.log())
		}
	}
	w.let()
	if long.status() != command.Done {
		t.Errorf("the long one failed: %s", long.log())
	}
	if got, err := os.ReadFile(filepath.Join(out, "climb.log")); err != nil || string(got) != "step 1\nstep 2\nstep 3\n" {
		t.Errorf("steps of the long one: %q, %v", got, err)
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 8+4+1 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

func TestOneShotOutputsDoNotReplaceInputs(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	dir := t.TempDir()
	for _, name := range []string{"a", "a.loud"} {
		writeFile(t, filepath.Join(dir, name), "an input")
	}
	status, _, stderr := w.run("shout", "run", "--in", filepath.Join(dir, "a"), filepath.Join(dir, "a.loud"), "--out", dir)
	if status != command.Failed {
		t.Errorf("status %d", status)
	}
	wantText(t, "error", stderr, "a.loud is an input", "another --out")
	if b, err := os.ReadFile(filepath.Join(dir, "a.loud")); err != nil || string(b) != "an input" {
		t.Errorf("the input is %q, %v", b, err)
	}
}

// rerunnable makes a finished run "r" and stops everything.
func rerunnable(t *testing.T) *harness {
	t.Helper()
	w := newHarness(t)
	p, q := w.serve("shout"), w.serve("collect")
	own := fmt.Sprintf(`{"trace":%q,"release":%q}`, w.trace, w.release)
	store, err := artifact.Open(w.data)
	if err != nil {
		t.Fatal(err)
	}
	definition, err := artifact.Put(store, "definition", "application/json", "definition.json",
		[]byte(fmt.Sprintf(`{"stages":{"shout":%s,"collect":%s}}`, own, own)))
	if err != nil {
		t.Fatal(err)
	}
	w.announce("r", event.Part{}, event.RunStarted{Pipeline: "test", Definition: definition})
	w.sources("r", "one", "two")
	w.outcomes("r", "shout", 2, event.Done)
	w.answers("r", "collect", 2)
	p.stop()
	q.stop()
	w.server.Stop()
	return w
}

func TestOldEventsAreAnsweredAgainWithoutABus(t *testing.T) {
	t.Parallel()
	w := rerunnable(t)
	before := len(w.traced("begin"))
	// With the parameters of the run the answer comes from the record.
	args := []string{"run", "--run", "r", "--trace", w.trace, "--release", w.release}
	status, stdout, stderr := w.run("shout", args...)
	if status != command.Done || strings.Count(stdout, "made before; --force makes it again") != 2 {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
	wantText(t, "output", stdout, filepath.Join(w.data, "runs", "r", "shout", "one.loud"))
	w.wantBegun(before)
	status, stdout, _ = w.run("shout", append(args, "--force")...)
	if status != command.Done || strings.Contains(stdout, "made before") {
		t.Errorf("status %d: %s", status, stdout)
	}
	w.wantBegun(before + 2)
	status, stdout, stderr = w.run("shout", append(args, "--layers", "3")...)
	if status != command.Done || strings.Contains(stdout, "made before") {
		t.Errorf("other parameters are other jobs: status %d: %s%s", status, stdout, stderr)
	}
	w.wantBegun(before + 4)
	wantText(t, "output", stdout, filepath.Join(w.data, "runs", "r", "shout", "layers=3", "one.loud"))
	status, stdout, stderr = w.run("collect", args...)
	if status != command.Done {
		t.Errorf("status %d: %s", status, stderr)
	}
	wantText(t, "output", stdout, "dataset.sealed", "all.txt")
	if got := w.text("r", "collect", "all.txt"); got != "ONE TWO " {
		t.Errorf("%q", got)
	}
}

// A rerun leaves out an event that it cannot read, and warns of that event alone. All other events are answered.
func TestARerunLeavesOutWhatItCannotRead(t *testing.T) {
	t.Parallel()
	w := rerunnable(t)
	args := []string{"run", "--run", "r", "--trace", w.trace, "--release", w.release}
	const warning = "an event is left out"
	if status, _, stderr := w.run("shout", args...); status != command.Done || strings.Contains(stderr, warning) {
		t.Errorf("status %d: %s", status, stderr)
	}
	raw, err := event.Marshal(map[string]any{"name": 7})
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Wrap("r", "test", "", event.Part{}, event.SourceAdded{}.Kind(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.journal().Write(e); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := w.run("shout", args...)
	if status != command.Done || strings.Count(stdout, "made before") != 2 || strings.Count(stderr, warning) != 1 {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}

// A one-shot prints the headline of an output and its files, and its numbers if they are not in a row of a table.
func TestLinesOfAnOutput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "there"), "")
	ref := func(name string) artifact.Ref {
		return artifact.Ref{Digest: digest.Bytes([]byte(name)), Kind: "pack", Name: name}
	}
	body, err := event.Marshal(event.PackWritten{Step: 7, Pack: ref("there"), Model: ref("elsewhere")})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "there")
	column := results.Column{Key: "step", Name: "steps", Value: "{step}"}
	for what, c := range map[string]struct {
		declared []results.Result
		want     []string
	}{
		"nothing declared": {nil, []string{"pack.written", file}},
		"a headline":       {[]results.Result{{Kind: "pack.written", Headline: "packed {step}"}}, []string{"packed 7", file}},
		"a number": {[]results.Result{{Kind: "a.b"}, {Kind: "pack.written", Columns: []results.Column{column}}},
			[]string{"pack.written", "steps  7", file}},
		"a row of a table": {[]results.Result{{Kind: "pack.written", Row: &column, Columns: []results.Column{column}}},
			[]string{"pack.written", file}},
	} {
		out := record.Output{Kind: "pack.written", Body: body}
		if got := outputLines(c.declared, out, dir, map[string]bool{}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

// A file is named under the first output that mentions it: the others refer to it.
func TestAFileIsNamedOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "there")
	writeFile(t, file, "")
	pack := artifact.Ref{Digest: digest.Bytes(nil), Kind: "pack", Name: "there"}
	body, err := event.Marshal(event.PackWritten{Pack: pack, Model: pack})
	if err != nil {
		t.Fatal(err)
	}
	out := record.Output{Kind: "pack.written", Body: body}
	var said strings.Builder
	c := cli.NewContext(&cli.App{Writer: &said}, nil, nil)
	err = printResult(c, nil, result{outputs: []record.Output{out, out}}, dir)
	if want := "pack.written\n  " + file + "\npack.written\n"; err != nil || said.String() != want {
		t.Errorf("%q, want %q (%v)", said.String(), want, err)
	}
}

// A preset is for files alone, unless the stage has a parameter named preset.
func TestPresetOverARun(t *testing.T) {
	type own struct {
		Preset string `json:"preset"`
	}
	args := []string{"shard", "run", "--data", t.TempDir(), "--run", "absent", "--preset", "nano"}
	of := Spec[own, event.SourceAdded]{
		Name: "shard", About: "a stage with presets", Example: "shard run", Version: "1",
		Work: func(context.Context, *Job[own], event.SourceAdded) error { return nil },
	}
	if status := Main(of, args); status != command.Failed { // there is no such run
		t.Errorf("a parameter: status %d, want %d", status, command.Failed)
	}
	others := Spec[struct{}, event.SourceAdded]{
		Name: "shard", About: "a stage of which presets speak", Example: "shard run", Version: "1",
		Work: func(context.Context, *Job[struct{}], event.SourceAdded) error { return nil },
	}
	if status := Main(others, args); status != command.Usage {
		t.Errorf("none: status %d, want %d", status, command.Usage)
	}
}

// A data directory has one name, whatever path leads to it.
func TestNameOfADirectory(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if a, b := artifact.DirectoryName("data"), artifact.DirectoryName(filepath.Join(dir, "data")); a != b ||
		!strings.HasSuffix(a, ":"+filepath.Join(dir, "data")) {
		t.Errorf("%s and %s", a, b)
	}
}

func TestJSONOutputIsOneObjectALine(t *testing.T) {
	t.Parallel()
	w := rerunnable(t)
	status, stdout, stderr := w.run("shout", "run", "--run", "r", "--json", "--trace", w.trace, "--release", w.release)
	if status != command.Done {
		t.Fatalf("status %d: %s", status, stderr)
	}
	for line := range strings.Lines(stdout) {
		var v struct {
			Kind, Job string
			Recorded  bool
			Body      map[string]any
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Kind != "tokens.written" || !v.Recorded ||
			v.Body["source"] == nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestRerunsSayWhatIsMissing(t *testing.T) {
	t.Parallel()
	w := rerunnable(t)
	for _, c := range []struct {
		stage, run string
		want       string
	}{
		{"shout", "absent", "there is no run absent in this data directory; the runs are: r"},
		{"shout", "r1", "did you mean r?"},
		{"shout", "../r", "not a run's id"},
	} {
		status, _, stderr := w.run(c.stage, "run", "--run", c.run)
		if status != command.Failed {
			t.Errorf("%s: status %d", c.run, status)
		}
		wantText(t, c.run, stderr, c.want)
	}
	files, err := filepath.Glob(filepath.Join(w.data, "runs", "r", "events", "tokens.written", "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := w.run("collect", "run", "--run", "r")
	if status != command.Failed {
		t.Errorf("status %d", status)
	}
	wantText(t, "a part is missing", stderr, "some of the 2 tokens.written events are missing")
}

func TestExitStatusesAndMessages(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "a")
	writeFile(t, file, "")
	out := filepath.Join(dir, "out")
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{}, command.Usage, "say how to run"},
		{[]string{"sreve"}, command.Usage, `unknown command "sreve"`},
		{[]string{"--help"}, command.Done, ""},
		{[]string{"serve"}, command.Failed, "NATS_URL"},
		{[]string{"serve", "extra"}, command.Usage, `unexpected argument "extra"`},
		{[]string{"serve", "--workers", "0"}, command.Usage, "--workers 0"},
		{[]string{"serve", "--workers", "x"}, command.Usage, "workers"},
		{[]string{"serve", "--attempts", "0"}, command.Usage, "--attempts 0"},
		{[]string{"serve", "--ack-wait", "0s"}, command.Usage, "--ack-wait 0s"},
		{[]string{"serve", "--from", "yesterday"}, command.Usage, "use all or now"},
		{[]string{"serve", "--run", "a.b"}, command.Usage, "not a run's id"},
		{[]string{"serve", "--mdoe", "fail"}, command.Usage, "there is no flag --mdoe: did you mean --mode?"},
		{[]string{"run", "--inn", file, "--out", out}, command.Usage, "there is no flag --inn: did you mean --in?"},
		{[]string{"run", "--quite-other", file}, command.Usage, "there is no flag --quite-other: --help lists the flags"},
		{[]string{"serve", "--mode", "dance"}, command.Usage, `mode "dance"`},
		{[]string{"serve", "--times", "many"}, command.Usage, `--times: times: "many" is not an integer`},
		{[]string{"serve", "--log-level", "loud"}, command.Usage, "use debug, info, warn or error"},
		{[]string{"run"}, command.Usage, "--in FILE … --out DIR, or --run RUN"},
		{[]string{"run", "--in", file}, command.Usage, "--in needs --out"},
		{[]string{"run", "--in", file, "--run", "r"}, command.Usage, "exclude each other"},
		{[]string{"run", "--in", file, "--out", out, "extra"}, command.Usage, `unexpected argument "extra"`},
		{[]string{"run", "--in", file, "--out", out, "--times", "1.5"}, command.Usage, "is not an integer"},
		{[]string{"run", "--in", file, "--out", out, "--layers", "1,x"}, command.Usage, "is not a list of integers"},
		{[]string{"run", "--in", filepath.Join(dir, "absent"), "--out", out}, command.Failed, "absent: no such file"},
		{[]string{"run", "--in", dir, "--out", out}, command.Failed, "is a folder, not a regular file: name a file in it"},
		{[]string{"run", "--in", file, "--out", file}, command.Failed, "output directory"},
		{[]string{"run", "--in", file, "--out", out, "--mode", "fail"}, command.Failed, "a failed for the 0. time"},
		{[]string{"run", "--in", file, "--out", out, "--mode", "panic"}, command.Failed, "panic in stage shout"},
		{[]string{"run", "--in", file, "--out", out, "--mode", "wait", "--deadline", "10ms"}, command.Failed,
			"longer than --deadline"},
		{[]string{"run", "--in", file, "--out", out}, command.Done, ""},
		{[]string{"run", "--data", file, "--run", "r"}, command.Failed, "cannot be used"},
		{[]string{"describe", "extra"}, command.Usage, "unexpected argument"},
	} {
		status, _, stderr := w.run("shout", c.args...)
		if status != c.status {
			t.Errorf("%v: status %d, want %d: %s", c.args, status, c.status, stderr)
		}
		wantText(t, strings.Join(c.args, " "), stderr, c.want)
		if status != command.Done && !strings.Contains("\n"+stderr, "\nshout: ") {
			t.Errorf("%v: the error does not say who speaks: %q", c.args, stderr)
		}
	}
	status, _, stderr := w.run("collect", "run", "--in", file, "--out", out)
	if status != command.Usage {
		t.Errorf("status %d", status)
	}
	wantText(t, "a stage without a form for files", stderr, "cannot work on files alone")
	cmd := w.command("shout", "run", "--in", file, "--out", out)
	cmd.Env = append(cmd.Env, "BITNET1_JSON=many")
	if b, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != command.Usage {
		t.Errorf("a wrong variable: %v, %s", err, b)
	}
}

func TestServersThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	for name, c := range map[string]struct{ env, want string }{
		"wrong password": {"NATS_PASSWORD=guess", "refused the credentials"},
		"unreachable":    {"NATS_URL=nats://127.0.0.1:1", "cannot be reached"},
	} {
		cmd := w.serveCommand("shout")
		cmd.Env = append(cmd.Env, c.env)
		b, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != command.Failed {
			t.Errorf("%s: %v", name, err)
		}
		wantText(t, name, string(b), c.want)
	}
}

func TestAnInterruptedOneShotFailsAndLeavesNothingHalfWritten(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	in, out := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "out")
	writeFile(t, in, "")
	p := w.start(w.command("shout", "run", "--in", in, "--out", out, "--mode", "wait", "--release", w.release, "--trace",
		w.trace))
	w.begun(1)
	p.signal(syscall.SIGINT)
	if status := p.status(); status != command.Failed {
		t.Errorf("status %d: %s", status, p.log())
	}
	wantText(t, "error", p.log(), "stopped by a signal", "without --force, continues")
	// The record that the job continues from is in a hidden folder.
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 1 || entries[0].Name() != ".jobs" {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestHelpHasAnExampleAndAllParameters(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"run", "--help"}, {"describe", "--help"}} {
		status, stdout, stderr := w.run("shout", args...)
		if status != command.Done || stderr != "" {
			t.Errorf("%v: status %d, %s", args, status, stderr)
		}
		wantText(t, strings.Join(args, " "), stdout, "Example:")
		if args[0] == "serve" || args[0] == "run" {
			wantText(t, strings.Join(args, " "), stdout, "--mode", "--layers", "work, wait, stay, fail", "(list of integers)",
				"(default: 0)")
		}
	}
}

func TestDescribeTellsALauncherAll(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	status, stdout, _ := w.run("shout", "describe")
	var d Description
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || status != command.Done {
		t.Fatalf("status %d, %v: %s", status, err, stdout)
	}
	if d.Name != "shout" || d.Kind != "source.added" || !slices.Equal(d.Emits, []string{"tokens.written"}) ||
		len(d.Parameters) != 6 || d.Parameters[1].Default != "work" {
		t.Errorf("%+v", d)
	}
	var looks Description
	_, stdout, _ = w.run("look", "describe")
	if err := json.Unmarshal([]byte(stdout), &looks); err != nil || looks.ChosenBy != "checkpoint" || !looks.OnDataset ||
		d.ChosenBy != "" || d.OnDataset {
		t.Errorf("%s: %v", stdout, err)
	}
}

func TestDescribeChecksParameters(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	for section, want := range map[string]string{
		``:                             "",
		`{}`:                           "",
		`null`:                         "",
		`{"mode": "fail"}`:             "",
		`{"mdoe": "fail"}`:             `stage shout: unknown key "mdoe": did you mean "mode"?`,
		`{"mode": "dance"}`:            `stage shout: mode "dance": use work`,
		`{"times": "x", "layers": 3}`:  "layers: 3 is not a list of integers",
		`{"times": null}`:              "times: null is not an integer",
		`[`:                            "must be a mapping",
		strings.Repeat("x", 2<<20):     "more than 1048576 bytes",
		strings.Repeat("[", 1_000_000): "must be a mapping",
	} {
		cmd := w.command("shout", "describe", "--check")
		cmd.Stdin = strings.NewReader(section)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if len(section) > 40 {
			section = section[:40] + "…"
		}
		if status := cmd.ProcessState.ExitCode(); (status == command.Done) != (want == "") {
			t.Errorf("%q: status %d: %s", section, status, stderr.String())
		}
		wantText(t, section, stderr.String(), want)
		if stderr.Len() > 1000 {
			t.Errorf("%q: an error of %d bytes", section, stderr.Len())
		}
	}
}

func TestDefinitionsSpeakToStagesByTheirSections(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	definition := func(run, section string) {
		ref := w.store(fmt.Sprintf(`{"name": "t", "stages": {"shout": %s}}`, section))
		w.announce(run, event.Part{}, event.RunStarted{Definition: ref})
	}
	p := w.serve("shout")
	definition("plain", `{}`)
	definition("layers", `{"layers": [7]}`)
	definition("wrong", `{"mdoe": "fail"}`)
	for _, run := range []string{"layers", "plain", "wrong"} {
		w.sources(run, "one")
	}
	other := w.outcomes("layers", "shout", 1, event.Done)[0].Key
	key := w.outcomes("plain", "shout", 1, event.Done)[0].Key
	if key == other {
		t.Error("a parameter is no part of the job's key")
	}
	wantText(t, "cause", w.outcomes("wrong", "shout", 1, event.Failed)[0].Cause, `did you mean "mode"`)
	// A run without a definition has the defaults, as the first one has.
	w.sources("bare", "one")
	if got := w.outcomes("bare", "shout", 1, event.Done)[0].Key; got != key {
		t.Error("the defaults have changed since the stage was started")
	}
	p.stop()
}

func TestSpecsThatCannotWorkAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Spec[testParams, event.SourceAdded]){
		"name with a dot": func(s *Spec[testParams, event.SourceAdded]) { s.Name = "a.b" },
		"no name":         func(s *Spec[testParams, event.SourceAdded]) { s.Name = "" },
		"no function":     func(s *Spec[testParams, event.SourceAdded]) { s.Work = nil },
	} {
		s := shout()
		change(&s)
		if err := s.validate(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Whoever stops a command while it looks for its inputs learns that it was stopped.
func TestStoppedWhileInputsAreLookedFor(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	p := newPerformer(t, Spec[testParams, event.SourceAdded]{Files: func(in *Files) ([]event.SourceAdded, error) {
		cancel(errStopped)
		return nil, fmt.Errorf("source x: %w", in.Err())
	}})
	if err := p.files(nil, &Files{Context: ctx}, testParams{}, nil); !errors.Is(err, errStopped) {
		t.Errorf("%v", err)
	}
}
