package index

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bitnet1/shared/measure/runtest"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/progress"
)

// opened is the index of a data directory, and what it said first.
func opened(t *testing.T, dir string) (*Index, uint64, map[string]Row) {
	t.Helper()
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	version, rows := changes(t, x, 0)
	return x, version, rows
}

// changes refreshes the index and returns the rows that changed.
func changes(t *testing.T, x *Index, after uint64) (uint64, map[string]Row) {
	t.Helper()
	if err := x.Refresh(); err != nil {
		t.Fatal(err)
	}
	rows, version, more := x.Changes(after, 1000)
	if more {
		t.Fatal("more than 1000 changes")
	}
	all := map[string]Row{}
	for _, r := range rows {
		all[r.Run] = r
	}
	return version, all
}

func appendTo(t *testing.T, path string, text []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		_, err = f.Write(text)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// at is a run that is half done.
var at = runtest.Run{Name: "v77-nano-1", Points: 60, Of: 120, Checkpoints: 2, Seed: 1, Rate: 0.002, Started: 5000}

// launch locks the data directory as a launcher of the run does.
func launch(t *testing.T, dir, run string) (end func(inOrder bool)) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, overview.LockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Name(), []byte(run+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	unmark, err := overview.Mark(journal.Open(dir), run)
	if err != nil {
		t.Fatal(err)
	}
	return func(inOrder bool) {
		if inOrder {
			if err := unmark(); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
}

func TestRowOfARun(t *testing.T) {
	dir := t.TempDir()
	runtest.Write(t, dir, at)
	x, version, rows := opened(t, dir)
	r := rows[at.Name]
	if r.State != overview.Paused || r.Started != 6000 || r.Step != 600 || r.Steps != 1200 || r.Tokens != 600*4096 ||
		r.Checkpoints != 2 || r.Best != "600" || r.Problem != "" {
		t.Errorf("%+v", r)
	}
	if want := at.Loss(59); r.Loss < want-0.001 || r.Loss > want+0.001 || r.Rate < 23000 || r.Rate > 27000 {
		t.Errorf("loss %v, want %v; rate %v", r.Loss, want, r.Rate)
	}
	columns, cells := x.Columns(0), map[string]string{}
	for n, cell := range r.Cells {
		cells[columns[n].Key] = cell.Text
	}
	if want := fmt.Sprintf("%.3f", at.Loss(59)+0.05); cells["validation_bits"] != want || cells["random_ipmr"] != "8.0 %" {
		t.Errorf("%v, want a validation of %s", cells, want)
	}
	given := map[string]string{}
	for _, n := range r.Parameters {
		p := x.Parameters(0)[n]
		given[p[0]] = p[1]
	}
	if given["train.learning_rate"] != "0.002" || given["preset"] != "nano" || given["seed"] != "1" {
		t.Errorf("%v", given)
	}
	if _, rows := changes(t, x, version); len(rows) != 0 {
		t.Errorf("nothing has changed, but %v", rows)
	}
}

// A run whose launcher has ended without saying so has crashed; one that was stopped in order is paused.
func TestStatesOfARun(t *testing.T) {
	dir := t.TempDir()
	other, failed, done := at, at, at
	other.Name, failed.Name, done.Name = "other", "failed", "done"
	failed.Failed, done.Finished = "the disk is full", true
	for _, r := range []runtest.Run{at, other, failed, done} {
		runtest.Write(t, dir, r)
	}
	x, version, rows := opened(t, dir)
	for name, want := range map[string]string{
		at.Name: "paused", "other": "paused", "failed": "failed", "done": "finished",
	} {
		if rows[name].State != want {
			t.Errorf("%s is %s, want %s", name, rows[name].State, want)
		}
	}
	for _, c := range []struct {
		inOrder bool
		want    string
	}{{true, overview.Paused}, {false, overview.Crashed}, {true, overview.Paused}} {
		end := launch(t, dir, at.Name)
		version, rows = changes(t, x, version)
		if len(rows) != 1 || rows[at.Name].State != overview.Running {
			t.Errorf("driven by a launcher: %+v", rows)
		}
		end(c.inOrder)
		version, rows = changes(t, x, version)
		if len(rows) != 1 || rows[at.Name].State != c.want {
			t.Errorf("in order: %v, want %s: %+v", c.inOrder, c.want, rows)
		}
	}
}

// What stages say of their work is shown as long as the run goes on.
func TestWorkOfARun(t *testing.T) {
	dir := t.TempDir()
	runtest.Write(t, dir, at)
	x, _, _ := opened(t, dir)
	end := launch(t, dir, at.Name)
	version, _ := changes(t, x, 0)
	x.Hear("nobody", bus.Progress{Stage: "train"})
	x.Hear(at.Name, bus.Progress{Stage: "train", Job: "a", Report: progress.Report{Done: 30, Total: 120, Unit: "steps",
		Values: map[string]float64{"tokens_per_second": 25000, "seconds_left": 90}}})
	version, rows := changes(t, x, version)
	if w := rows[at.Name].Work; len(w) != 1 || w[0].Share != 0.25 ||
		w[0].Text != "30/120 steps  25 k tokens/s  1m30s left" {
		t.Errorf("%+v", rows)
	}
	end(true)
	if _, rows = changes(t, x, version); len(rows[at.Name].Work) != 0 || rows[at.Name].State != overview.Paused {
		t.Errorf("a run that was stopped: %+v", rows)
	}
}

// Runs that begin, grow and go are noticed, and nothing else is said.
func TestChanges(t *testing.T) {
	dir := t.TempDir()
	x, version, rows := opened(t, dir)
	if len(rows) != 0 || !x.Ready() {
		t.Errorf("an empty directory: %v", rows)
	}
	runtest.Write(t, dir, at)
	version, rows = changes(t, x, version)
	if len(rows) != 1 {
		t.Fatalf("a new run: %v", rows)
	}
	appendTo(t, runtest.LogFile(dir, at.Name), runtest.Line(at, 60))
	version, rows = changes(t, x, version)
	if rows[at.Name].Step != 610 {
		t.Errorf("a new line: %+v", rows)
	}
	appendTo(t, runtest.LogFile(dir, at.Name), runtest.Line(at, 61)[:40])
	if version, rows = changes(t, x, version); rows[at.Name].Step != 610 {
		t.Errorf("half a line: %+v", rows)
	}
	more := at
	more.Points, more.Checkpoints, more.Finished = 90, 3, true
	runtest.Write(t, dir, more)
	version, rows = changes(t, x, version)
	if r := rows[at.Name]; r.Checkpoints != 3 || r.State != overview.Finished || r.Step != 900 {
		t.Errorf("further checkpoints: %+v", rows)
	}
	if err := os.RemoveAll(filepath.Join(dir, "runs", at.Name)); err != nil {
		t.Fatal(err)
	}
	version, rows = changes(t, x, version)
	if !rows[at.Name].Gone || x.Count() != 0 {
		t.Errorf("a removed run: %+v", rows)
	}
	runtest.Write(t, dir, at)
	if _, rows = changes(t, x, version); rows[at.Name].Gone || rows[at.Name].Step != 600 || rows[at.Name].Number != 1 {
		t.Errorf("a run of the same name: %+v", rows)
	}
}

// Many runs come in pieces, each row once.
func TestChangesInPieces(t *testing.T) {
	dir := t.TempDir()
	for i := range 25 {
		runtest.Write(t, dir, runtest.Run{Name: fmt.Sprint("run-", i), Started: int64(i)})
	}
	x, _, _ := opened(t, dir)
	seen, version := map[string]int{}, uint64(0)
	for more := true; more; {
		var rows []Row
		if rows, version, more = x.Changes(version, 10); len(rows) > 10 {
			t.Fatalf("%d rows", len(rows))
		}
		for _, r := range rows {
			seen[r.Run]++
		}
	}
	if len(seen) != 25 || seen["run-7"] != 1 {
		t.Errorf("%v", seen)
	}
}

// curve is the curve of a run that is watched.
func curve(t *testing.T, x *Index, name, key, over string) (line Line, marks [][2]float64) {
	t.Helper()
	found := false
	x.WithCurve(name, func(_ int, c *Curve) {
		found, line, marks = true, c.After(key, over, 0, 1000), c.Validations(over)
	})
	if !found {
		t.Fatalf("run %s has no curve", name)
	}
	return line, marks
}

func TestCurve(t *testing.T) {
	dir := t.TempDir()
	runtest.Write(t, dir, at)
	x, version, _ := opened(t, dir)
	release := x.Watch([]string{at.Name, "absent"})
	line, marks := curve(t, x, at.Name, "train_bpc", OverTokens)
	if len(line.Mean) != 60 || line.Over[59] != 600*4096 || line.Final != 60 || line.Done != 600 || len(marks) != 2 ||
		marks[1][0] != 600*4096 {
		t.Errorf("%+v, %v", line, marks)
	}
	if line, _ = curve(t, x, at.Name, "lr", OverSteps); line.Over[0] != 10 || line.Mean[59] != 0.002 {
		t.Errorf("%+v", line)
	}
	seconds, _ := curve(t, x, at.Name, "train_bpc", OverSeconds)
	rate, _ := curve(t, x, at.Name, Rate, OverSeconds)
	if len(seconds.Over) != 60 || !slices.Equal(seconds.Over, rate.Over) || seconds.Over[59] < 90 ||
		seconds.Over[59] > 110 {
		t.Errorf("%v seconds, %v", seconds.Over, rate.Over)
	}
	appendTo(t, runtest.LogFile(dir, at.Name), runtest.Line(at, 60))
	changes(t, x, version)
	if line, _ = curve(t, x, at.Name, "train_bpc", OverSteps); len(line.Mean) != 61 {
		t.Errorf("%d points after a new line, want 61", len(line.Mean))
	}
	appendTo(t, runtest.TimesFile(dir, at.Name), runtest.TimesLine(at, 3)) // of a step that was timed before
	changes(t, x, version)
	if again, _ := curve(t, x, at.Name, Rate, OverSeconds); !slices.Equal(again.Over, rate.Over) {
		t.Errorf("%v seconds, want %v", again.Over, rate.Over)
	}
	release()
	x.WithCurve(at.Name, func(int, *Curve) { t.Error("a curve that nobody watches is kept") })
}

// Training that went on from an earlier checkpoint has another log than before.
func TestCurveRestarts(t *testing.T) {
	dir := t.TempDir()
	runtest.Write(t, dir, at)
	x, version, _ := opened(t, dir)
	defer x.Watch([]string{at.Name})()
	curve(t, x, at.Name, "train_bpc", OverSteps)
	less := at
	less.Points, less.Seed = 30, 2
	runtest.Write(t, dir, less)
	changes(t, x, version)
	if line, _ := curve(t, x, at.Name, "train_bpc", OverSteps); len(line.Mean) != 30 {
		t.Errorf("%d points, want 30", len(line.Mean))
	}
	x.WithCurve(at.Name, func(_ int, c *Curve) {
		if c.Restarted == 0 {
			t.Error("nobody is told")
		}
	})
}

// Whatever lies in a data directory, other runs are shown, and nothing outside of it is read.
func TestHostileRuns(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret.jsonl")
	runtest.Write(t, dir, at)
	secretLine := runtest.Line(runtest.Run{Of: 1, Rate: 1}, 776)
	if err := os.WriteFile(secret, append(secretLine, secretLine...), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(run string) error{
		"no-events":  func(run string) error { return os.RemoveAll(filepath.Join(run, "events")) },
		"no-start":   func(run string) error { return os.RemoveAll(filepath.Join(run, "events", "run.started")) },
		"no-results": func(run string) error { return os.RemoveAll(filepath.Join(run, "results")) },
		"bad-results": func(run string) error {
			return os.WriteFile(filepath.Join(run, "results", "train.json"), []byte("{"), 0o644)
		},
		"half-line": func(run string) error { return os.WriteFile(logOf(run), []byte(`{"event":"step","st`), 0o644) },
		"binary-log": func(run string) error {
			return os.WriteFile(logOf(run), []byte(strings.Repeat("\x00\xff\n", 1e5)), 0o644)
		},
		"one-line": func(run string) error { return os.WriteFile(logOf(run), []byte(strings.Repeat("x", 1<<20)), 0o644) },
		"huge-numbers": func(run string) error {
			return os.WriteFile(logOf(run), []byte("{\"event\":\"step\",\"step\":1e300,\"train_bpc\":1e300}\n"), 0o644)
		},
		"folder-log": func(run string) error { return os.Mkdir(logOf(run), 0o755) },
		"pipe-log":   func(run string) error { return unix.Mkfifo(logOf(run), 0o644) },
		"link-out":   func(run string) error { return os.Symlink(secret, logOf(run)) },
		"link-loop":  func(run string) error { return os.Symlink(logOf(run), logOf(run)) },
		"cut-events": func(run string) error {
			return filepath.WalkDir(filepath.Join(run, "events"), func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					err = os.Truncate(path, 20)
				}
				return err
			})
		},
	} {
		r := at
		r.Name = name
		runtest.Write(t, dir, r)
		if regexp.MustCompile("log|line|link|numbers").MatchString(name) {
			if err := os.Remove(runtest.LogFile(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := spoil(filepath.Join(dir, "runs", name)); err != nil {
			t.Fatal(name, err)
		}
	}
	for _, name := range []string{"..hidden", "a b", "file"} {
		if err := os.WriteFile(filepath.Join(dir, "runs", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x, _, rows := opened(t, dir)
	if len(rows) != 13 || rows[at.Name].Step != 600 || rows[at.Name].Problem != "" {
		t.Errorf("%d rows, %+v", len(rows), rows[at.Name])
	}
	for _, name := range []string{"no-start", "cut-events"} {
		if r := rows[name]; r.Started == 0 || r.State == "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, name := range []string{"cut-events", "folder-log", "pipe-log", "link-out", "link-loop"} {
		if rows[name].Problem == "" {
			t.Errorf("%s: nobody is told", name)
		}
	}
	names := make([]string, 0, len(rows))
	for name := range rows {
		names = append(names, name)
	}
	defer x.Watch(names)()
	for _, name := range names {
		x.WithCurve(name, func(_ int, c *Curve) {
			if line := c.After("train_bpc", OverSteps, 0, 100); rows[name].Step == 7770 || len(line.Over) == 2 {
				t.Errorf("%s: a file outside of the data directory was read: %+v", name, line)
			}
		})
		if _, err := x.Details(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func logOf(run string) string {
	return runtest.LogFile(filepath.Dir(filepath.Dir(run)), filepath.Base(run))
}

func TestDetails(t *testing.T) {
	dir := t.TempDir()
	r := at
	r.Failed = "the disk is full"
	runtest.Write(t, dir, r)
	x, _, _ := opened(t, dir)
	d, err := x.Details(at.Name)
	if err != nil || len(d.Tables) != 1 || len(d.Tables[0].Rows) != 2 || len(d.Heads) != 2 || len(d.Texts) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	if row := d.Tables[0].Rows[1]; row.Name != "600" || !slices.Equal(row.Marks, []string{"best"}) ||
		row.Cells["ipmr"].Text == "" {
		t.Errorf("%+v", row)
	}
	states := map[string]string{}
	for _, s := range d.Stages {
		states[s.Name] = fmt.Sprint(s.State, " ", s.Done, "/", s.Total, " ", s.Causes)
	}
	if states["evaluate"] != "failed 0/2 [the disk is full]" || states["train"] != "waiting 0/1 []" ||
		states["generate"] != "waiting 0/0 []" {
		t.Errorf("%v", states)
	}
	m, err := x.HeatMap(d.Heads[1].Digest)
	if err != nil || m.Layers != 4 || m.Heads != 4 || len(m.Measures["ipmr"]) != 16 || m.Random["ipmr"] != 0.08 {
		t.Errorf("%+v, %v", m, err)
	}
	text, err := x.Text(d.Texts[0].Digest)
	if err != nil || !strings.Contains(string(text), "it was the 300th step") || d.Texts[0].Step != 300 {
		t.Errorf("%+v: %s, %v", d.Texts[0], text, err)
	}
	for _, bad := range []string{"", "../../../etc/passwd", strings.Repeat("0", 64)} {
		if _, err := x.Text(bad); err == nil {
			t.Errorf("artifact %q was read", bad)
		}
	}
	if _, err := x.HeatMap(d.Texts[0].Digest); err == nil {
		t.Error("a text was read as a report")
	}
	if _, err := x.Details("../" + at.Name); err == nil {
		t.Error("a run by a path")
	}
}

func TestOpenNamesTheDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + ".absent"} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%v does not name %s", err, path)
		}
	}
}
