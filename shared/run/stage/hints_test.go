package stage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

// A command that follows the advice of an error message succeeds.
func TestHintsWork(t *testing.T) {
	t.Parallel()
	w, _, manifest := looked(t)
	dir := t.TempDir()
	in, out := filepath.Join(dir, "one"), filepath.Join(dir, "out")
	writeFile(t, in, "words")
	definition := w.store(`{"name": "words", "stages": {}}`)
	w.announce("first", event.Part{}, event.RunStarted{Pipeline: "words", Definition: definition})
	w.announce("first", event.Part{Count: 1}, event.SourceAdded{Name: "one", Digest: digest.Bytes([]byte("one"))})
	names := strings.NewReplacer(
		"OUT", out, "IN", in, "OTHER", filepath.Join(dir, "other"), "DATA", w.data, "MANIFEST", manifest)
	for _, c := range []struct {
		stage, refused, hint, follow string
	}{
		{"shout", "", "say how to run: shout serve, or shout run", "run --in IN --out OUT/0"},
		{"shout", "run", "say what to work on: --in FILE … --out DIR, or --run RUN", "run --in IN --out OUT/1"},
		{"shout", "walk", "use serve, run or describe", "describe"},
		{"shout", "run --in IN", "--in needs --out DIR", "run --in IN --out OUT/2"},
		{"shout", "run --in IN --out OUT/3 --data OTHER", "--data does nothing with --in", "run --in IN --out OUT/3"},
		{"shout", "run --in IN --out OUT/4 --run first", "--in and --run exclude each other", "run --run first"},
		{"shout", "run --in IN --out OUT/5 --log-level loud", "use debug, info", "run --in IN --out OUT/5 --log-level info"},
		{"shout", "run --in IN --out OUT/6 --layer 3", "did you mean --layers", "run --in IN --out OUT/6 --layers 3"},
		{"shout", "run --in IN --out OUT/6 --layers 4", "choose another --out", "run --in IN --out OUT/7 --layers 4"},
		{"shout", "run --in IN --out OUT/6 --layers 4", "--force to replace", "run --in IN --out OUT/6 --layers 4 --force"},
		{"shout", "run --run frist", "did you mean first", "run --run first"},
		{"shout", "run --run x --data IN", "choose another directory with --data", "run --run first --data DATA"},
		{"shout", "run --run first --data OTHER", "name the directory with --data", "run --run first --data DATA"},
		{"collect", "run --in IN --out OUT/8", "cannot work on files alone: use --run RUN", "run --run first"},
		{"look", "run --in IN --out OUT/9", "add --dataset MANIFEST", "run --in IN --out OUT/9 --dataset MANIFEST"},
		{"look", "run --run r --checkpoint newest", "use last, best, all or a step", "run --run r --checkpoint last"},
		{"look", "run --run r --checkpoint best", "use --checkpoint last, all or a step", "run --run r --checkpoint all"},
		{"look", "run --run r --checkpoint 7", "its steps are [1 2]", "run --run r --checkpoint 2"},
	} {
		args := func(text string) []string { return strings.Fields(names.Replace(text)) }
		status, _, stderr := w.run(c.stage, args(c.refused)...)
		if status == command.Done || !strings.Contains(stderr, c.hint) {
			t.Errorf("%s %s: status %d, want %q in\n%s", c.stage, c.refused, status, c.hint, stderr)
		}
		if status, _, stderr := w.run(c.stage, args(c.follow)...); status != command.Done {
			t.Errorf("%s %s, as the message says: status %d\n%s", c.stage, c.follow, status, stderr)
		}
	}
}

// The stage that an error message names makes damaged and missing artifacts again.
func TestHintsAboutDamageWork(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.announce("r", event.Part{Count: 1}, event.SourceAdded{Name: "one", Digest: digest.Bytes([]byte("one"))})
	must := func(stage string, args ...string) (stderr string) {
		t.Helper()
		status, _, stderr := w.run(stage, append([]string{"run", "--run", "r"}, args...)...)
		if status != command.Done {
			t.Fatalf("%s %v: status %d\n%s", stage, args, status, stderr)
		}
		return stderr
	}
	must("shout")
	written, err := w.journal().Read("r", event.TokensWritten{}.Kind())
	if err != nil || len(written) != 1 {
		t.Fatalf("%v, %v", written, err)
	}
	tokens, err := event.Into[event.TokensWritten](written[0])
	if err != nil {
		t.Fatal(err)
	}
	object := artifact.ObjectPath(w.data, tokens.Batch.Digest)
	for what, damage := range map[string]func() error{
		"removed":   func() error { return os.Remove(object) },
		"truncated": func() error { return errors.Join(os.Chmod(object, 0o644), os.Truncate(object, 1)) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		status, _, stderr := w.run("collect", "run", "--run", "r", "--force")
		if status != command.Failed || !strings.Contains(stderr, "rerun the stage that made it with --force") {
			t.Errorf("%s: status %d\n%s", what, status, stderr)
		}
		must("shout", "--force")
		must("collect", "--force")
	}

	kept := filepath.Join(w.journal().RunDir("r"), "events", event.TokensWritten{}.Kind(), written[0].ID+".msgpack")
	if err := os.Truncate(kept, 3); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := w.run("collect", "run", "--run", "r")
	if status == command.Done || !strings.Contains(stderr, "the stage that made it, announces it again") {
		t.Errorf("a damaged event: status %d\n%s", status, stderr)
	}
	must("shout")
	must("collect")
}
