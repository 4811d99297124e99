package record

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
)

// A record that is closed can be opened, although a process that is being started still has the file of the lock open.
func TestAClosedRecordIsFree(t *testing.T) {
	t.Parallel()
	root, key := t.TempDir(), strings.Repeat("ab", 32)
	r, err := Open(root, "climb", key, []byte("{}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := unix.Dup(int(r.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	r.Close()
	again, err := Open(root, "climb", key, []byte("{}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Attempts are counted from the last output that is new, and kept with the record.
func TestAttemptsCountFromTheLastOutput(t *testing.T) {
	t.Parallel()
	root, key := t.TempDir(), strings.Repeat("ab", 32)
	open := func() *Record {
		r, err := Open(root, "climb", key, []byte("{}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := func(r *Record, n int) {
		t.Helper()
		if got := r.Attempts(); got != n {
			t.Errorf("%d attempts, want %d", got, n)
		}
	}
	r := open()
	want(r, 0)
	for n := 1; n <= 3; n++ {
		if err := r.SetAttempts(n); err != nil {
			t.Fatal(err)
		}
	}
	want(r, 3)
	if isNew, err := r.Add("tokens.written", []byte{0x80}); err != nil || !isNew {
		t.Fatalf("the output is new: %v, %v", isNew, err)
	}
	want(r, 1)
	if err := r.SetAttempts(2); err != nil {
		t.Fatal(err)
	}
	r.Close()
	r = open()
	defer r.Close()
	want(r, 2)
	if isNew, err := r.Add("tokens.written", []byte{0x80}); err != nil || isNew {
		t.Fatalf("the output is the one of before: %v, %v", isNew, err)
	}
	want(r, 2)
	for _, none := range []int{0, -1} { // nothing is written, for the disk may be full
		if err := errors.Join(r.SetAttempts(2), r.SetAttempts(none)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(r.Dir(), "attempts")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d attempts are kept in a file: %v", none, err)
		}
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	want(r, 0)
}

// Finished jobs are found, by their keys and all together; those at work and damaged records are not.
func TestFinishedJobs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	done, working, damaged := strings.Repeat("ab", 32), strings.Repeat("cd", 32), strings.Repeat("ef", 32)
	moved := strings.Repeat("12", 32)
	for _, key := range []string{done, working, damaged} {
		r, err := Open(root, "train", key, []byte(`{"steps":3}`), []string{"in"})
		if err != nil {
			t.Fatal(err)
		}
		if key != working {
			err = r.Commit()
		}
		if r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, damaged[:2], damaged, FileName), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := Find(root, done); err != nil || r.Params != `{"steps":3}` || r.Key != done {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.CopyFS(filepath.Join(root, moved[:2], moved), os.DirFS(filepath.Join(root, done[:2], done))); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		moved: "of another job", working: "no such file", damaged: "record of job efef", "": "not exist",
	} {
		if r, err := Find(root, key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("job %q: %+v, %v, want %q", key, r, err, want)
		}
	}
	if err := os.RemoveAll(filepath.Join(root, moved[:2])); err != nil {
		t.Fatal(err)
	}
	if all, err := Finished(root); err != nil || len(all) != 1 || all[0].Key != done {
		t.Errorf("%v, %v", all, err)
	}
}

// A record that differs in one bit from what was written is not used, and neither are the outputs of an unfinished job
// from such a one on. An older version wrote both without a checksum.
func TestAFlippedBitIsNoticed(t *testing.T) {
	t.Parallel()
	root, key := t.TempDir(), strings.Repeat("ab", 32)
	open := func() *Record {
		r, err := Open(root, "train", key, []byte(`{"steps":3}`), []string{"in"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	check := func(path string, outputs int) {
		t.Helper()
		written, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(written) {
			b := bytes.Clone(written)
			b[bit/8] ^= 1 << (bit % 8)
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			r := open()
			if r.Complete() || len(r.Outputs) != outputs || len(r.Damage) != 1 ||
				!strings.Contains(r.Damage[0].Error(), path) {
				t.Errorf("%s, bit %d: complete %v, outputs %q, damage %v", path, bit, r.Complete(), r.Outputs, r.Damage)
			}
			r.Close()
		}
		old, err := digest.CutChecksum(written)
		if err != nil {
			t.Fatal(err)
		}
		old = append([]byte{old[0] - 1}, old[1:]...) // a map of a member less
		if err := os.WriteFile(path, old, 0o644); err != nil {
			t.Fatal(err)
		}
		if r := open(); len(r.Outputs) != 3 || len(r.Damage) > 0 {
			t.Errorf("%s of an older version: %q, %v", path, r.Outputs, r.Damage)
		} else {
			r.Close()
		}
	}
	r := open()
	for _, body := range []string{"\x81\xa1n\x01", "\x81\xa1n\x02", "\x81\xa1n\x03"} {
		if _, err := r.Add("tokens.written", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	check(r.partial(1), 1)
	r = open()
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	check(filepath.Join(r.Dir(), FileName), 0)
}

// Outputs that are retracted are gone from the record, also when it is opened again. The outputs before them stay.
func TestOutputsAreTakenBack(t *testing.T) {
	t.Parallel()
	root, key := t.TempDir(), strings.Repeat("cd", 32)
	bodies := func(r *Record) (all []string) {
		for _, out := range r.Outputs {
			all = append(all, string(out.Body))
		}
		return all
	}
	for _, left := range []int{3, 2, 0} {
		r, err := Open(root, "climb", key, []byte("{}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"\x81\xa1n\x01", "\x81\xa1n\x02", "\x81\xa1n\x03"} { // {n: 1} and so on
			if _, err := r.Add("tokens.written", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		r.Outputs = slices.Clip(r.Outputs)
		want := bodies(r)[:left]
		if err := r.Retract(left); err != nil || !slices.Equal(bodies(r), want) {
			t.Errorf("%d are to be left: %q, %v", left, bodies(r), err)
		}
		r.Close()
		if r, err = Open(root, "climb", key, []byte("{}"), nil); err != nil || !slices.Equal(bodies(r), want) {
			t.Errorf("%d are to be left: %q are read again, %v", left, bodies(r), err)
		}
		r.Close()
	}
}

// What an output mentions was made for it, unless it is an input of the job or an earlier output mentions it.
func TestWhatAnOutputOnlyPassesOn(t *testing.T) {
	t.Parallel()
	ref := func(name string) artifact.Ref {
		return artifact.Ref{Digest: digest.Bytes([]byte("bytes")), Kind: "checkpoint", Name: name}
	}
	input := artifact.Ref{Digest: digest.Bytes([]byte("dataset")), Kind: "manifest", Name: "manifest.json"}
	r, err := Open(t.TempDir(), "train", strings.Repeat("ef", 32), []byte("{}"), []string{input.Digest})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	add := func(name, previous string) {
		t.Helper()
		saved := event.CheckpointSaved{Model: ref(name), Manifest: input}
		if previous != "" {
			before := ref(previous)
			saved.Previous = &before
		}
		body, err := event.Marshal(saved)
		if err == nil {
			_, err = r.Add(saved.Kind(), body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(i int, name string) {
		t.Helper()
		if made := r.Made(i); len(made) != 1 || made[0].Name != name {
			t.Errorf("output %d made %v, want %s", i, made, name)
		}
	}
	add("one", "")
	add("two", "one") // of the same bytes, as files of other names may be
	check(1, "two")
	add("three", "two")
	check(2, "three")
	if err := r.Retract(1); err != nil {
		t.Fatal(err)
	}
	add("three", "one") // what was retracted has made nothing
	add("two", "three")
	check(0, "one")
	check(1, "three")
	check(2, "two")
	if own := r.Own(); len(own) != 3 {
		t.Errorf("the job made %v", own)
	}
}

// params are a stage's.
type params struct {
	Times  int   `json:"times"`
	Layers []int `json:"layers"`
}

func TestAJobsKeyDependsOnWhatMayChangeItsOutput(t *testing.T) {
	key := func(stage, version string, params any, inputs ...string) string {
		key, _, err := Key(stage, version, params, inputs)
		if err != nil || !digest.Valid(key) {
			t.Fatalf("%q, %v", key, err)
		}
		return key
	}
	keys := []string{
		key("s", "1", params{}, "a", "b"), key("t", "1", params{}, "a", "b"), key("s", "2", params{}, "a", "b"),
		key("s", "1", params{Times: 1}, "a", "b"), key("s", "1", params{}, "b", "a"), key("s", "1", params{}, "ab"),
		key("s", "1", params{}, "a"), key("s", "1", params{}), key("s", "1", struct{}{}, "a", "b"),
	}
	for i := range keys {
		if slices.Contains(keys[:i], keys[i]) {
			t.Errorf("key %d is one of those before", i)
		}
	}
	if keys[0] != key("s", "1", params{Layers: []int{}}, "a", "b") {
		t.Error("no list and an empty list are other work")
	}
	// The key does not depend on where a file lies, nor on when it was announced.
	one, two := event.SourceAdded{Name: "n", Digest: "d", Path: "/a", Size: 1}, event.SourceAdded{Name: "n", Digest: "d",
		Path: "/b"}
	if !slices.Equal(one.Inputs(), two.Inputs()) {
		t.Error("the path of a source is part of its identity")
	}
}
