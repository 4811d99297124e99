package journal

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/vfs"
)

func newEvent(t *testing.T, run string, part event.Part, at int64, body event.Body) event.Envelope {
	t.Helper()
	e, err := event.New(run, "stage", "job", part, body)
	if err != nil {
		t.Fatal(err)
	}
	e.Time = at
	return e
}

func keep(t *testing.T, j Journal, e event.Envelope) string {
	t.Helper()
	if _, err := j.Write(e); err != nil {
		t.Fatal(err)
	}
	return j.path(e.Run, e.Kind, e.ID)
}

func TestEventsComeBackInTheOrderOfTheirParts(t *testing.T) {
	j := Open(t.TempDir())
	for _, index := range []int{3, 0, 2, 1} {
		keep(t, j, newEvent(t, "r", event.Part{Index: index, Count: 4}, int64(100-index), event.PackWritten{Step: index}))
	}
	packs, err := Bodies[event.PackWritten](j, "r")
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range packs {
		if p.Step != i {
			t.Fatalf("order %+v", packs)
		}
	}
	// Events without parts come in the order of their time.
	for _, at := range []int64{30, 10, 20} {
		keep(t, j, newEvent(t, "r2", event.Part{}, at, event.PackWritten{Step: int(at)}))
	}
	packs, err = Bodies[event.PackWritten](j, "r2")
	if err != nil || len(packs) != 3 || packs[0].Step != 10 || packs[2].Step != 30 {
		t.Errorf("%+v, %v", packs, err)
	}
}

func TestAnEventIsKeptOnce(t *testing.T) {
	j := Open(t.TempDir())
	e := newEvent(t, "r", event.Part{}, 1, event.PackWritten{Step: 1})
	if isNew, err := j.Write(e); err != nil || !isNew {
		t.Errorf("first: %v, %v", isNew, err)
	}
	e.Time = 2
	if isNew, err := j.Write(e); err != nil || isNew {
		t.Errorf("again: %v, %v", isNew, err)
	}
	if events, err := j.Read("r", e.Kind); err != nil || len(events) != 1 || events[0].Time != 1 {
		t.Errorf("%+v, %v", events, err)
	}
}

// If two jobs find the same fact, both events are kept. The event of the later job is the latest, and events of the
// run's own parameters win over all others.
func TestWhatAKilledWriterLeftBesideAnEventGoes(t *testing.T) {
	j := Open(t.TempDir())
	e := newEvent(t, "r", event.Part{}, 1, event.PackWritten{Step: 1})
	path := keep(t, j, e)
	left := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".write")
	f, err := os.Create(left)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	keep(t, j, e)
	if _, err := os.Stat(left); err != nil {
		t.Errorf("the file of a writer that is alive: %v", err)
	}
	f.Close()
	keep(t, j, e)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the file of a dead writer is still there: %v", err)
	}
}

func TestWhatCountsOfAFactFoundAgain(t *testing.T) {
	j := Open(t.TempDir())
	found := func(step int, job, input, sequences string, at int64, renew bool) {
		t.Helper()
		e := newEvent(t, "r", event.Part{}, at, event.PackWritten{Step: step})
		if e.Job, e.Input = digest.Bytes([]byte(job)), input; sequences != "" {
			e.Overrides = map[string]string{"probe.sequences": sequences}
		}
		write := j.Write
		if renew {
			write = j.Renew
		}
		if _, err := write(e); err != nil {
			t.Fatal(err)
		}
	}
	last := func(events int, want event.Envelope) {
		t.Helper()
		all, err := j.Read("r", want.Kind)
		if err != nil || len(all) != events {
			t.Fatalf("%d events, want %d: %v", len(all), events, err)
		}
		if e := all[len(all)-1]; e.ID != want.ID || len(e.Overrides) != len(want.Overrides) {
			t.Errorf("the last one is %+v, want %+v", e, want)
		}
	}
	one, two := newEvent(t, "r", event.Part{}, 0, event.PackWritten{Step: 1}), newEvent(t, "r", event.Part{}, 0,
		event.PackWritten{Step: 2})
	found(1, "own", "i", "", 10, true)
	found(2, "other", "i", "2", 20, true)
	last(2, one)
	found(2, "own", "i", "", 30, false) // equal to what other parameters gave
	last(2, two)
	found(1, "own", "i", "", 40, false)
	last(2, two)
	found(1, "own", "i", "", 50, true)
	last(2, one)
	found(2, "old", "", "", 60, true) // of an older version, which does not say with which parameters
	last(2, one)
	all, err := j.Announcements("r", one.Kind)
	if err != nil || len(all) != 4 {
		t.Errorf("%d announcements, want 4: %v", len(all), err)
	}
	for _, name := range []string{"../../../out", "job"} { // no digest, no file
		e := newEvent(t, "r", event.Part{}, 70, event.PackWritten{Step: 1})
		e.Job = name
		if isNew, err := j.Renew(e); err != nil || isNew {
			t.Errorf("%v, %v", isNew, err)
		}
	}
	if all, err := j.Announcements("r", one.Kind); err != nil || len(all) != 4 {
		t.Errorf("%d announcements, want 4: %v", len(all), err)
	}
}

// The history of a run has the events of all kinds in the order of time, one event for each fact.
func TestAllEventsOfARun(t *testing.T) {
	dir := t.TempDir()
	j := Open(dir)
	if all, err := j.All("r"); err != nil || len(all) != 0 {
		t.Errorf("no run: %v, %v", all, err)
	}
	keep(t, j, newEvent(t, "r", event.Part{}, 20, event.PackWritten{Step: 1}))
	keep(t, j, newEvent(t, "r", event.Part{}, 10, event.RunStarted{}))
	again := newEvent(t, "r", event.Part{}, 30, event.PackWritten{Step: 1})
	again.Job = digest.Bytes(nil)
	keep(t, j, again)
	keep(t, j, newEvent(t, "r", event.Part{}, 15, event.SourceAdded{Name: "s"}))
	overwrite(t, filepath.Join(dir, "runs", "r", "events", "notes"), nil)
	all, err := j.All("r")
	var times []int64
	for _, e := range all {
		times = append(times, e.Time)
	}
	if err != nil || !slices.Equal(times, []int64{10, 15, 30}) {
		t.Errorf("events at %v, %v", times, err)
	}
}

func TestWhatIsNotThereIsNoError(t *testing.T) {
	j := Open(filepath.Join(t.TempDir(), "absent"))
	if events, err := j.Read("r", "pack.written"); err != nil || len(events) != 0 {
		t.Errorf("%v, %v", events, err)
	}
	if runs, err := j.Runs(); err != nil || len(runs) != 0 {
		t.Errorf("%v, %v", runs, err)
	}
}

func TestNamesThatLeaveTheJournalAreRefused(t *testing.T) {
	j := Open(t.TempDir())
	for _, c := range [][2]string{{"..", "pack.written"}, {"a/b", "pack.written"}, {"", "pack.written"}, {"r", "../../x"},
		{"r", ""}} {
		if _, err := j.Read(c[0], c[1]); err == nil {
			t.Errorf("run %q, kind %q was read", c[0], c[1])
		}
	}
	good := artifact.Ref{Digest: strings.Repeat("0", 64), Kind: "k", Name: "fine"}
	for _, name := range []string{"../up", "a/b", "", ".", "..", ".x"} {
		ref := good
		ref.Name = name
		if err := j.Link("r", "stage", ref); err == nil {
			t.Errorf("link %q was made", name)
		}
	}
	short := good
	short.Digest = ""
	if err := j.Link("r", "stage", short); err == nil {
		t.Error("a link to no digest was made")
	}
}

func TestDamagedEventsAreNamedAndMendedByWritingThemAgain(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, j Journal, path string){
		"flipped bit": func(t *testing.T, _ Journal, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-2] ^= 1
			overwrite(t, path, b)
		},
		"empty":   func(t *testing.T, _ Journal, path string) { overwrite(t, path, nil) },
		"garbage": func(t *testing.T, _ Journal, path string) { overwrite(t, path, []byte{0xdd, 0xff, 0xff, 0xff, 0xff}) },
		"of another run": func(t *testing.T, j Journal, path string) {
			other, err := os.ReadFile(keep(t, j, newEvent(t, "other", event.Part{}, 1, event.PackWritten{Step: 1})))
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, path, other)
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := Open(t.TempDir())
			e := newEvent(t, "r", event.Part{}, 1, event.PackWritten{Step: 1})
			path := keep(t, j, e)
			damage(t, j, path)
			var told []error
			j = j.Telling(func(err error) { told = append(told, err) })
			other := newEvent(t, "r", event.Part{}, 2, event.PackWritten{Step: 2})
			keep(t, j, other)
			for range 2 { // it is told once
				if events, err := j.Read("r", e.Kind); err != nil || len(events) != 1 || events[0].ID != other.ID {
					t.Errorf("beside a damaged event: %v, %v", events, err)
				}
			}
			if len(told) != 1 || !strings.Contains(told[0].Error(), path) ||
				!strings.Contains(told[0].Error(), "announces it again") {
				t.Errorf("told: %v", told)
			}
			if isNew, err := j.Write(e); err != nil || !isNew {
				t.Errorf("writing again: %v, %v", isNew, err)
			}
			if events, err := j.Read("r", e.Kind); err != nil || len(events) != 2 {
				t.Errorf("after mending: %v, %v", events, err)
			}
		})
	}
}

// An event file that was copied from another run, or into the folder of another kind, is refused.
// An event that differs in one bit from what was written is not used: its id covers its body alone, and its file has a
// checksum for the rest. An older version wrote the event alone.
func TestAFlippedBitIsNoticed(t *testing.T) {
	j := Open(t.TempDir()).Telling(func(error) {})
	e := newEvent(t, "r", event.Part{Index: 2, Count: 4}, 5, event.PackWritten{Step: 3})
	path := keep(t, j, e)
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(written) {
		written[bit/8] ^= 1 << (bit % 8)
		overwrite(t, path, written)
		if j.Keeps(e) {
			t.Errorf("bit %d of %s is flipped and the event is used", bit, path)
		}
		written[bit/8] ^= 1 << (bit % 8)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, b)
	if events, err := j.Read("r", e.Kind); err != nil || len(events) != 1 || events[0].Time != 5 {
		t.Errorf("an event of an older version: %v, %v", events, err)
	}
}

func TestEventsBelongWhereTheyWereWritten(t *testing.T) {
	var told []error
	j := Open(t.TempDir()).Telling(func(err error) { told = append(told, err) })
	e := newEvent(t, "r", event.Part{}, 1, event.PackWritten{Step: 1})
	b, err := os.ReadFile(keep(t, j, e))
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range []struct{ run, kind string }{{"other", e.Kind}, {"r", event.RunStarted{}.Kind()}} {
		path := j.path(at.run, at.kind, e.ID)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		overwrite(t, path, b)
		if events, err := j.Read(at.run, at.kind); err != nil || len(events) != 0 {
			t.Errorf("%v: %v, %v", at, events, err)
		}
		if len(told) != i+1 ||
			!strings.Contains(told[i].Error(), "it is the event pack.written "+digest.Short(e.ID)+" of run r") {
			t.Errorf("%v: told %v", at, told)
		}
	}
}

func TestBodiesOfAnotherShapeAreLeftOutAndNamed(t *testing.T) {
	var told []error
	j := Open(t.TempDir()).Telling(func(err error) { told = append(told, err) })
	raw, err := event.Marshal(map[string]any{"step": "seven"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Wrap("r", "colour", "", event.Part{}, event.PackWritten{}.Kind(), raw)
	if err != nil {
		t.Fatal(err)
	}
	keep(t, j, e)
	keep(t, j, newEvent(t, "r", event.Part{}, 1, event.PackWritten{Step: 1}))
	if bodies, err := Bodies[event.PackWritten](j, "r"); err != nil || len(bodies) != 1 || bodies[0].Step != 1 {
		t.Errorf("%v, %v", bodies, err)
	}
	if len(told) != 1 || !strings.Contains(told[0].Error(), "run r") ||
		!strings.Contains(told[0].Error(), "stage colour") {
		t.Errorf("told: %v", told)
	}
}

func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOtherFilesInTheJournalAreLeftAlone(t *testing.T) {
	j := Open(t.TempDir())
	path := keep(t, j, newEvent(t, "r", event.Part{}, 1, event.PackWritten{}))
	for _, name := range []string{"notes.txt", ".hidden.msgpack", "copy of it.msgpack"} {
		overwrite(t, filepath.Join(filepath.Dir(path), name), []byte("something else"))
	}
	if events, err := j.Read("r", "pack.written"); err != nil || len(events) != 1 {
		t.Errorf("%v, %v", events, err)
	}
}

// Gathering stages read while others write.
func TestReadingWhileOthersWrite(t *testing.T) {
	j := Open(t.TempDir())
	var wg sync.WaitGroup
	for writer := range 3 {
		wg.Go(func() {
			for i := range 50 {
				e, err := event.New("r", "stage", "", event.Part{}, event.PackWritten{Step: 100*writer + i})
				if err == nil {
					_, err = j.Write(e)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		if _, err := j.Read("r", "pack.written"); err != nil {
			t.Fatal(err)
		}
	}
	if events, err := j.Read("r", "pack.written"); err != nil || len(events) != 150 {
		t.Errorf("%d events, %v", len(events), err)
	}
}

func TestRunsAreListedByTheirStart(t *testing.T) {
	dir := t.TempDir()
	j := Open(dir)
	for run, at := range map[string]int64{"later": 20, "last": 30, "zero": 10} { // their names are in another order
		keep(t, j, newEvent(t, run, event.Part{}, at, event.RunStarted{Pipeline: run}))
	}
	keep(t, j, newEvent(t, "never-started", event.Part{}, 5, event.PackWritten{}))
	overwrite(t, filepath.Join(dir, "runs", "a file"), nil)
	runs, err := j.Runs()
	if err != nil || !slices.Equal(runs, []string{"zero", "later", "last"}) {
		t.Errorf("%v, %v", runs, err)
	}
}

func TestLinksLeadToArtifactsAndSurviveMovingTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	store, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	j := Open(dir)
	for _, text := range []string{"one", "two", "two"} {
		w, err := store.Create("text", "text/plain", "latest.txt")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		ref, err := w.Commit()
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Link("r", "stage", ref); err != nil {
			t.Fatal(err)
		}
	}
	moved := filepath.Join(filepath.Dir(dir), "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(moved, "runs", "r", "stage", "latest.txt")); err != nil || string(b) != "two" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestManyProcessesMayMakeTheSameLink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 200 {
				if err := Symlink(vfs.OS, filepath.Join(dir, string(rune('a'+i))), link); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// Parts reads each event once, however often it is called. It also finds events that others write between two calls,
// and events that were damaged and are mended.
func TestPartsAreReadOnceAndSeenWhenAllAreThere(t *testing.T) {
	j := Open(t.TempDir()).Telling(func(error) {})
	const count = 5
	kind := event.PackWritten{}.Kind()
	parts := j.NewParts("r", kind)
	want := func(n int) {
		t.Helper()
		if events, err := parts.Read(count); err != nil || len(events) != n {
			t.Fatalf("%d events (%v), want %d", len(events), err, n)
		}
	}
	want(0)
	keep(t, j, newEvent(t, "r", event.Part{Index: 1, Count: 7}, 1, event.PackWritten{Step: 70})) // of another set
	var last event.Envelope
	var path string
	for i := range count {
		want(0)
		last = newEvent(t, "r", event.Part{Index: i, Count: count}, int64(i), event.PackWritten{Step: i})
		path = keep(t, j, last)
		if i == 0 { // a second event for one part makes no set
			keep(t, j, newEvent(t, "r", event.Part{Index: i, Count: count}, 9, event.PackWritten{Step: 90}))
		}
		if i == 2 { // what is read is not read again
			want(0)
			overwrite(t, path, nil)
		}
	}
	overwrite(t, path, nil)
	want(0)
	if _, err := j.Write(last); err != nil {
		t.Fatal(err)
	}
	want(count + 1) // a part twice, one of the other set, and without the one that was damaged after it had been read
}

// Parts reads no file twice: a gathering stage calls Parts for each of its events, and there may be thousands.
func TestPartsAreNotReadAgain(t *testing.T) {
	j := Open(t.TempDir())
	first := newEvent(t, "r", event.Part{Index: 0, Count: 2}, 1, event.PackWritten{Step: 1})
	path := keep(t, j, first)
	parts := j.NewParts("r", first.Kind)
	for _, index := range []int{0, 1} { // the second time, the file of the first part says that it is the other one
		first.Part.Index = index
		b, err := first.Encode()
		if err != nil {
			t.Fatal(err)
		}
		overwrite(t, path, b)
		if events, err := parts.Read(2); err != nil || len(events) != 0 {
			t.Errorf("one of two parts: %d events, %v", len(events), err)
		}
	}
}

// A folder at rest is not listed again. An event that comes then is found all the same.
func TestPartsOfAFolderAtRest(t *testing.T) {
	j := Open(t.TempDir())
	part := func(i int) event.Envelope {
		return newEvent(t, "r", event.Part{Index: i, Count: 2}, 1, event.PackWritten{Step: i})
	}
	keep(t, j, part(0))
	parts := j.NewParts("r", part(0).Kind)
	for range 2 {
		if events, err := parts.Read(2); err != nil || len(events) != 0 {
			t.Errorf("one of two parts: %d events, %v", len(events), err)
		}
		parts.since = parts.since.Add(-2 * atRest)
	}
	if !parts.listed {
		t.Error("a folder at rest is listed at each event")
	}
	keep(t, j, part(1))
	if events, err := parts.Read(2); err != nil || len(events) != 2 {
		t.Errorf("two of two parts: %d events, %v", len(events), err)
	}
}

func TestHas(t *testing.T) {
	j := Open(t.TempDir())
	kind := event.PackWritten{}.Kind()
	if j.Has("r", kind) {
		t.Error("a run without events has some")
	}
	keep(t, j, newEvent(t, "r", event.Part{}, 1, event.PackWritten{Step: 1}))
	if !j.Has("r", kind) || j.Has("r2", kind) {
		t.Error("one event is not told, or is another run's")
	}
}
