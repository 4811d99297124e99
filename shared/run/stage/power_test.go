package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/vfs"
	"bitnet1/shared/run/vfs/vfstest"
)

// save is a job with two outputs of an artifact each, that keeps a file of its own between them.
func save(promise func(string)) Spec[testParams, event.SourceAdded] {
	return Spec[testParams, event.SourceAdded]{
		Name: "save", Version: "1",
		Work: func(ctx context.Context, job *Job[testParams], _ event.SourceAdded) error {
			done, err := Emitted[event.TokensWritten](job)
			if err != nil {
				return err
			}
			for i := len(done); i < 2; i++ {
				_, err := job.Keep("state", func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "at step %d", i)
					return err
				})
				if err != nil {
					return err
				}
				name := fmt.Sprintf("step-%d", i)
				ref, err := artifact.Put(job, "tokens", "text/plain", name, []byte("the bytes of "+name))
				if err != nil {
					return err
				}
				if err := job.Emit(ctx, event.TokensWritten{Batch: ref, Documents: int64(i)}); err != nil {
					return err
				}
				promise(name)
			}
			return nil
		},
	}
}

// saveOn does the job of save in a data directory, as often as a stage that serves is asked to.
func saveOn(t *testing.T, fsys vfs.FS, dir string, promise func(string)) error {
	t.Helper()
	p, err := performerOn(fsys, dir, save(promise))
	if err != nil {
		return err
	}
	return saveWith(t, p, promise)
}

func saveWith(t *testing.T, p *performer[testParams, event.SourceAdded], promise func(string)) error {
	t.Helper()
	in := newEvent(t, "r", "launcher", event.SourceAdded{Name: "one", Digest: digest.Bytes(nil)})
	if _, err := p.journal.Write(in); err != nil {
		return err
	}
	job := task[testParams, event.SourceAdded]{run: "r"}
	if err := job.answer(p.spec, nil, []event.Envelope{in}); err != nil {
		return err
	}
	_, err := p.perform(t.Context(), job)
	if err == nil {
		promise("done")
	}
	return err
}

// left is what a job leaves: the content of each file and link, by path. Events are there by their names, because they
// hold the time.
func left(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.Type()&fs.ModeSymlink != 0 {
			all[rel], err = os.Readlink(path)
			return err
		}
		b, err := os.ReadFile(path)
		all[rel] = string(b)
		if strings.HasPrefix(rel, "runs") {
			all[rel] = "an event"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantLeft(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := left(t, dir)
	for path, content := range want {
		if got[path] != content {
			t.Errorf("%s is %q, want %q", path, got[path], content)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is left", path)
		}
	}
}

// wantWhole fails the test unless each artifact has the bytes of its name, each event can be read, and the artifacts
// that events and records mention are there. promised is what the job had said before.
func wantWhole(t *testing.T, dir string, promised []string) {
	t.Helper()
	objects, err := artifact.Objects(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if sum, _, err := digest.File(artifact.ObjectPath(dir, o.Digest)); err != nil || sum != o.Digest {
			t.Errorf("artifact %s has digest %s (%v)", digest.Short(o.Digest), digest.Short(sum), err)
		}
	}
	store := artifact.ReadOnly(dir)
	there := map[string]bool{}
	whole := func(where string, body []byte) {
		for _, ref := range record.Mentioned(body) {
			if _, err := store.Path(ref); err != nil {
				t.Errorf("%s: %v", where, err)
			}
			there[where+" "+ref.Name] = true
		}
	}
	events, err := journal.Open(dir).Telling(func(err error) { t.Error(err) }).All("r")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		whole("event", e.Body)
	}
	finished, err := record.Finished(record.Root(store))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range finished {
		for _, out := range r.Outputs {
			whole("record", out.Body)
		}
	}
	partials, err := filepath.Glob(filepath.Join(dir, "jobs", "*", "*", "partial", "*.msgpack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range partials {
		var out record.Output
		if b, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		} else if err := event.Unmarshal(b, &out); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		whole("record", out.Body)
	}
	for _, promise := range promised {
		if promise == "done" {
			if len(finished) != 1 {
				t.Errorf("the job was done, and there are %d records of finished jobs", len(finished))
			}
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "runs", "r", "save", promise)); err != nil {
			t.Errorf("%s was announced, and its link is lost: %v", promise, err)
		}
		if !there["event "+promise] || !there["record "+promise] {
			t.Errorf("%s was announced, and is lost", promise)
		}
	}
}

// undisturbed is what save leaves when nothing fails.
func undisturbed(t *testing.T) map[string]string {
	t.Helper()
	dir := vfstest.Dir(t)
	if err := saveOn(t, vfstest.Unsynced, dir, func(string) {}); err != nil {
		t.Fatal(err)
	}
	return left(t, dir)
}

// Whatever a power cut leaves, no artifact, event or record is there in part, nothing that was announced is lost, and
// the job ends with the same bytes when it is done again.
func TestAPowerCutAtAnyMoment(t *testing.T) {
	want := undisturbed(t)
	dir := vfstest.Dir(t)
	disk := vfstest.Record(dir)
	if err := saveOn(t, disk, filepath.Join(dir, "data"), disk.Mark); err != nil {
		t.Fatal(err)
	}
	states := 0
	disk.Crashes(func(c vfstest.Crash) {
		states++
		if t.Failed() {
			return
		}
		after := vfstest.Dir(t)
		c.Restore(t, after)
		data := filepath.Join(after, "data")
		wantWhole(t, data, c.Promised)
		if err := saveOn(t, vfstest.Unsynced, data, func(string) {}); err != nil {
			t.Errorf("it cannot go on: %v", err)
		}
		wantWhole(t, data, []string{"step-0", "step-1", "done"})
		wantLeft(t, data, want)
		if t.Failed() {
			t.Logf("the power was cut %s; promised was %v", c.When, c.Promised)
		}
		os.RemoveAll(after)
	})
	t.Logf("%d states", states)
	if states < 100 {
		t.Errorf("only %d states were tried", states)
	}
}

// Whatever fails at whatever operation, the job ends with an error that says why or as if nothing had failed. Nothing
// is there in part, and the same process goes on once the disk is well.
func TestADiskThatFailsAtAnyOperation(t *testing.T) {
	want := undisturbed(t)
	for _, fault := range vfstest.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			for at := 0; !t.Failed(); at++ {
				dir := vfstest.Dir(t)
				disk := &vfstest.Faulty{Fault: fault, At: at}
				var promised []string
				err := saveOn(t, disk, dir, func(p string) { promised = append(promised, p) })
				if !disk.Failed {
					break // that was all of its operations
				}
				if err != nil && (!errors.Is(err, fault.Err) || isPermanent(err)) {
					t.Errorf("the error is %v", err)
				}
				if err != nil && slices.Contains(promised, "done") {
					t.Errorf("done, and %v", err)
				}
				wantWhole(t, dir, promised)
				if err := saveOn(t, vfstest.Unsynced, dir, func(string) {}); err != nil {
					t.Errorf("it cannot go on: %v", err)
				}
				wantLeft(t, dir, want)
				if t.Failed() {
					t.Logf("operation %d failed", at)
				}
			}
		})
	}
}
