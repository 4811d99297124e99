package stage

import (
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/run/command"
)

// used is a folder that one-shot runs write into.
type used struct {
	*harness
	in, out string
}

func newUsed(t *testing.T) *used {
	t.Helper()
	u := &used{harness: newHarness(t), in: filepath.Join(t.TempDir(), "one"), out: filepath.Join(t.TempDir(), "out")}
	u.let()
	writeFile(u.t, u.in, "words")
	return u
}

func (u *used) args(more ...string) []string {
	return append([]string{"run", "--in", u.in, "--out", u.out, "--trace", u.trace, "--release", u.release}, more...)
}

func (u *used) holds(name, want string) {
	u.t.Helper()
	if b, err := os.ReadFile(filepath.Join(u.out, name)); err != nil || string(b) != want {
		u.t.Errorf("%s is %q, want %q: %v", name, b, want, err)
	}
}

// made runs a stage to its end.
func (u *used) made(stage string, want string, args ...string) {
	u.t.Helper()
	status, stdout, stderr := u.run(stage, u.args(args...)...)
	if status != command.Done {
		u.t.Errorf("%s %v: status %d: %s", stage, args, status, stderr)
	}
	wantText(u.t, "output", stdout, want)
}

// refused runs a stage that is to leave the folder as it is.
func (u *used) refused(stage string, wants []string, args ...string) {
	u.t.Helper()
	status, _, stderr := u.run(stage, u.args(args...)...)
	if status != command.Failed {
		u.t.Errorf("%s %v: status %d: %s", stage, args, status, stderr)
	}
	wantText(u.t, "error", stderr, append(wants, "another --out", "--force")...)
}

// A command does not replace the files of another command in a folder. The same command gets its recorded answer.
func TestAUsedFolderKeepsWhatWasMade(t *testing.T) {
	t.Parallel()
	u := newUsed(t)
	u.made("shout", "one.loud")
	u.made("shout", "made before")
	u.wantBegun(1)
	u.refused("shout", []string{"one.loud", "layers [0]"}, "--layers", "3")
	u.wantBegun(1) // before any work is done
	// Another input has an output of the same name: it is accepted if the file has the same content.
	first := u.in
	u.in = filepath.Join(t.TempDir(), "one")
	writeFile(u.t, u.in, "other words")
	u.made("shout", "one.loud") // which is equal
	u.in = first
	u.holds("one.loud", "ONE")
	// A file that has changed is not replaced, and a missing file is made again.
	writeFile(u.t, filepath.Join(u.out, "one.loud"), "precious")
	u.refused("shout", []string{"one.loud", "another content"})
	u.holds("one.loud", "precious")
	if err := os.Remove(filepath.Join(u.out, "one.loud")); err != nil {
		t.Fatal(err)
	}
	u.made("shout", "one.loud")
	u.holds("one.loud", "ONE")
	writeFile(u.t, filepath.Join(u.out, "one.loud"), "not so precious")
	u.made("shout", "one.loud", "--force")
	u.holds("one.loud", "ONE")
	u.made("shout", "one.loud", "--force", "--layers", "3")
}

// Unfinished work in a folder is continued by the command that began it, and is refused to other commands.
func TestAUsedFolderKeepsUnfinishedWork(t *testing.T) {
	t.Parallel()
	u := newUsed(t)
	if err := os.Remove(u.release); err != nil {
		t.Fatal(err)
	}
	p := u.start(u.command("climb", u.args("--mode", "wait")...))
	u.begun(1)
	p.kill()
	u.let()
	u.refused("climb", []string{"climb.log", "unfinished"}, "--mode", "wait", "--layers", "3")
	u.made("climb", "climb.log", "--mode", "wait")
	u.holds("climb.log", "step 1\nstep 2\nstep 2\nstep 3\n")
	u.made("climb", "made before", "--mode", "wait")
	u.refused("climb", []string{"one.step1", "layers [0]"}, "--mode", "wait", "--layers", "3")
	// Versions that kept no records left a log alone.
	if err := os.RemoveAll(filepath.Join(u.out, ".jobs")); err != nil {
		t.Fatal(err)
	}
	u.refused("climb", []string{"climb.log", "from another climb"}, "--mode", "wait")
	u.holds("climb.log", "step 1\nstep 2\nstep 2\nstep 3\n")
}
