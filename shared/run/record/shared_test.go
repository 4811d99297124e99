package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/run/bucket"
	"bitnet1/shared/s3/s3test"
)

var jobKey = strings.Repeat("ab", 32)

// host returns the root of the records of another host that shares the server's bucket.
func host(t *testing.T, server *s3test.Server) (root string) {
	t.Helper()
	dir := t.TempDir()
	if err := bucket.Attach(dir, server.URL("runs")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "jobs")
}

// twin is a host that takes the other one's jobs over at once: its data directory has the same name in the bucket, as
// that of a process that died has.
func twin(t *testing.T, other string) (root string) {
	t.Helper()
	dir := t.TempDir()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(other), bucket.FileName))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, bucket.FileName), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "jobs")
}

func begin(t *testing.T, root string) *Record {
	t.Helper()
	r, err := Open(root, "train", jobKey, []byte("{}"), []string{"input"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func add(t *testing.T, r *Record, body byte) {
	t.Helper()
	if isNew, err := r.Add("checkpoint.saved", []byte{body}); err != nil || !isNew {
		t.Fatalf("output %d: new %v, %v", body, isNew, err)
	}
}

func wantOutputs(t *testing.T, r *Record, complete bool, bodies ...byte) {
	t.Helper()
	var have []byte
	for _, out := range r.Outputs {
		have = append(have, out.Body...)
	}
	if string(have) != string(bodies) || r.Complete() != complete {
		t.Errorf("outputs %v, complete %v; want %v, %v", have, r.Complete(), bodies, complete)
	}
}

func TestAJobDoneOnOneHostIsDoneOnAll(t *testing.T) {
	server := s3test.Start(t)
	maker, reader := host(t, server), host(t, server)
	r := begin(t, maker)
	if _, err := Open(reader, "train", jobKey, []byte("{}"), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("two hosts work on one job: %v", err)
	}
	add(t, r, 1)
	if _, err := Find(reader, jobKey); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unfinished job has a record: %v", err)
	}
	r.Unkeyed = `{"text":"a.txt"}`
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	wantOutputs(t, begin(t, reader), true, 1)
	found, err := Find(host(t, server), jobKey)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := Find(reader, jobKey)
	if err != nil || found.Unkeyed != r.Unkeyed || copied.Unkeyed != r.Unkeyed {
		t.Errorf("the paths of files are %q and %q, want %q (%v)", found.Unkeyed, copied.Unkeyed, r.Unkeyed, err)
	}
	wantOutputs(t, found, true, 1)
	all, err := Finished(host(t, server))
	if err != nil || len(all) != 1 || all[0].Stage != "train" || all[0].Params != "{}" {
		t.Errorf("finished: %+v (%v)", all, err)
	}
	for _, root := range []string{maker, reader} {
		if _, err := read(filepath.Join(root, "ab", jobKey)); err != nil {
			t.Errorf("the host has no copy: %v", err)
		}
	}
}

// The second host goes on from the last output, with the stage's live files as they were then. What it has of an
// attempt of its own is older.
func TestAnotherHostGoesOn(t *testing.T) {
	server := s3test.Start(t)
	first, second := host(t, server), host(t, server)
	write := func(r *Record, name, text string) {
		t.Helper()
		dir, err := r.Scratch()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := begin(t, second)
	write(r, "pause", "step 3")
	write(r, "log", "old")
	r.Close()

	r = begin(t, first)
	r.Live("log")
	write(r, "log", "one\n")
	add(t, r, 1)
	write(r, "log", "one\ntwo\n")
	add(t, r, 2)
	write(r, "log", "one\ntwo\nand more")
	r.Close()

	r = begin(t, second)
	wantOutputs(t, r, false, 1, 2)
	dir, err := r.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || string(b) != "one\ntwo\n" {
		t.Errorf("the log is %q (%v)", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "pause")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("an older state is left to go on from")
	}
	if err := r.Retract(1); err != nil {
		t.Fatal(err)
	}
	r.Close()
	r = begin(t, first)
	wantOutputs(t, r, false, 1)
	r.Close()
	r = begin(t, first)
	write(r, "own", "mine")
	r.Close()
	r = begin(t, first) // on the same host, its own files stay
	if _, err := os.Stat(filepath.Join(r.Dir(), "scratch", "own")); err != nil {
		t.Error(err)
	}
}

func TestASupersededProcessCommitsNothing(t *testing.T) {
	server := s3test.Start(t)
	root := host(t, server)
	late := begin(t, root)
	add(t, late, 1)
	r := begin(t, twin(t, root))
	wantOutputs(t, r, false, 1)
	if _, err := late.Add("checkpoint.saved", []byte{9}); !errors.Is(err, ErrSuperseded) || !errors.Is(err, ErrBusy) {
		t.Errorf("a late output: %v", err)
	}
	if err := late.Commit(); !errors.Is(err, ErrSuperseded) {
		t.Errorf("a late commit: %v", err)
	}
	if err := late.Retract(0); !errors.Is(err, ErrSuperseded) {
		t.Errorf("a late retraction: %v", err)
	}
	<-late.Superseded()
	add(t, r, 2)
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	late.Close()
	wantOutputs(t, begin(t, host(t, server)), true, 1, 2)
}

// A job that is done anew has another record on all hosts, and the process that did it first cannot bring it back.
func TestDoneAnew(t *testing.T) {
	server := s3test.Start(t)
	root := host(t, server)
	late := begin(t, root)
	r := begin(t, twin(t, root))
	add(t, r, 1)
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	other := host(t, server)
	r = begin(t, other)
	wantOutputs(t, r, true, 1)
	if err := r.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := late.Commit(); !errors.Is(err, ErrSuperseded) {
		t.Errorf("a late commit: %v", err)
	}
	if _, err := Find(host(t, server), jobKey); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a job that is done anew has a record: %v", err)
	}
	add(t, r, 2)
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	late.Close()
	for _, root := range []string{root, other, host(t, server)} {
		wantOutputs(t, begin(t, root), true, 2)
	}
}

// A process that dies between the commit and the copy for readers leaves a job that is done.
func TestTheCopyForReadersIsMadeAgain(t *testing.T) {
	server := s3test.Start(t)
	r := begin(t, host(t, server))
	add(t, r, 1)
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(server.Object("runs/" + folder(jobKey) + "/" + FileName)); err != nil {
		t.Fatal(err)
	}
	wantOutputs(t, begin(t, host(t, server)), true, 1)
	if _, err := Find(host(t, server), jobKey); err != nil {
		t.Error(err)
	}
}
