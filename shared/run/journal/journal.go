// Package journal keeps the events of every run as files, beside the artifacts they mention, so that the bus is never
// their only copy: runs can be listed, rerun and resumed with no bus at all. It does not deliver events.
//
//	runs/<run>/events/<kind>/<id>.msgpack   the events; <id>.<job>.msgpack where another job found the same
//	runs/<run>/<stage>/<name>               links to a stage's artifacts, for people
//	runs/<run>/logs/                        logs
package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/vfs"
)

// Journal is the history of all runs under one data directory.
type Journal struct {
	fs     vfs.FS
	dir    string
	shared *bucket.Bucket // that dir is attached to, with the events of all hosts; nil: none
	damage *damage
}

// damage tells of events that cannot be read, each of them once.
type damage struct {
	tell func(error)
	told sync.Map
}

// Open returns the journal under the data directory dir. Reading leaves damaged events out and says so on standard
// error.
func Open(dir string) Journal {
	return Journal{fs: vfs.OS, dir: dir, shared: bucket.Of(dir),
		damage: &damage{tell: func(err error) { fmt.Fprintln(os.Stderr, "warning:", err) }}}
}

// On returns the same journal, which writes to another file system than the operating system's.
func (j Journal) On(fsys vfs.FS) Journal {
	j.fs = fsys
	return j
}

// Telling returns the same journal, which tells of damaged events by calling tell.
func (j Journal) Telling(tell func(error)) Journal {
	j.damage = &damage{tell: tell}
	return j
}

func (j Journal) tell(err error) {
	if _, told := j.damage.told.LoadOrStore(err.Error(), true); !told {
		j.damage.tell(err)
	}
}

// RunDir is the folder of a run.
func (j Journal) RunDir(run string) string { return filepath.Join(j.dir, "runs", run) }

// LogDir is the folder of a run's logs.
func (j Journal) LogDir(run string) string { return filepath.Join(j.RunDir(run), "logs") }

func (j Journal) kindDir(run, kind string) string {
	return filepath.Join(j.RunDir(run), "events", kind)
}

const suffix = ".msgpack"

func (j Journal) path(run, kind, name string) string {
	return filepath.Join(j.kindDir(run, kind), name+suffix)
}

// Write keeps e. It reports whether e is new: an event whose id is there already is left as it is, unless its file is
// damaged. Where another job found the same, with other parameters say, that is kept beside it.
func (j Journal) Write(e event.Envelope) (isNew bool, err error) { return j.write(e, false) }

// Renew is Write for what was found anew: of what was found with equal parameters it is then the latest, also where an
// equal event is there already.
func (j Journal) Renew(e event.Envelope) (isNew bool, err error) { return j.write(e, true) }

func (j Journal) write(e event.Envelope, renew bool) (isNew bool, err error) {
	name := e.ID
	first, err := j.readFile(e.Run, e.Kind, name, e.ID)
	isNew = err != nil
	if !isNew && digest.Valid(e.Job) && e.Job != first.Job {
		name += "." + e.Job
		_, err = j.readFile(e.Run, e.Kind, name, e.ID)
	}
	if err == nil && !renew || !isNew && !digest.Valid(e.Job) {
		artifact.Settle(j.fs, j.path(e.Run, e.Kind, name)) // two wrote the same, and one of them was killed
		return isNew, nil
	}
	b, err := e.Encode()
	if err != nil {
		return false, err
	}
	if err := j.keep(e.Run, e.Kind, name, digest.AppendChecksum(b)); err != nil {
		return false, fmt.Errorf("journal of run %s: %w", e.Run, err)
	}
	return isNew, nil
}

// Keeps reports whether the journal has e, undamaged.
func (j Journal) Keeps(e event.Envelope) bool {
	_, err := j.readFile(e.Run, e.Kind, e.ID, e.ID)
	return err == nil
}

// Read returns the events of a run and kind, each once, in the order of their parts. Of one part the last one counts:
// those that were found with other parameters than the run's own come first, the rest in the order of their time. A run
// without such events gives none. Damaged events are left out: who announces them again, or the bus, mends them.
func (j Journal) Read(run, kind string) ([]event.Envelope, error) {
	all, err := j.Announcements(run, kind)
	if err != nil {
		return nil, err
	}
	var events []event.Envelope
	seen := map[string]bool{}
	for _, e := range slices.Backward(all) {
		if !seen[e.ID] {
			seen[e.ID] = true
			events = append(events, e)
		}
	}
	slices.Reverse(events)
	return events, nil
}

// Announcements is Read with an event for every job that found it.
func (j Journal) Announcements(run, kind string) ([]event.Envelope, error) {
	if !event.ValidRun(run) || !event.ValidKind(kind) {
		return nil, fmt.Errorf("events %q of run %q: not a run's id or not a kind of event", kind, run)
	}
	files, err := j.files(run, kind)
	if err != nil {
		return nil, fmt.Errorf("journal of run %s: %w", run, err)
	}
	var events []event.Envelope
	for _, file := range files {
		name, ok := strings.CutSuffix(file, suffix)
		id, _, _ := strings.Cut(name, ".")
		if !ok || !digest.Valid(id) {
			continue
		}
		e, err := j.readFile(run, kind, name, id)
		if err != nil {
			j.tell(fmt.Errorf("%s is left out: %w (pipeline run, or the stage that made it, announces it again)",
				j.path(run, kind, name), err))
			continue
		}
		events = append(events, e)
	}
	slices.SortStableFunc(events, func(a, b event.Envelope) int {
		return cmp.Or(cmp.Compare(a.Part.Index, b.Part.Index), cmp.Compare(standing(a), standing(b)),
			cmp.Compare(a.Time, b.Time), cmp.Compare(a.ID, b.ID))
	})
	return events, nil
}

// standing ranks an event by the parameters it was found with: other than the run's own, unknown, the run's own. Who
// announces an event without its input, a stage in another language or an older version, does not say.
func standing(e event.Envelope) int {
	switch {
	case len(e.Overrides) > 0:
		return 0
	case e.Input == "":
		return 1
	default:
		return 2
	}
}

// All returns every event of a run, of any kind, in the order of their time.
func (j Journal) All(run string) ([]event.Envelope, error) {
	kinds, err := j.folders("runs", run, "events")
	if err != nil {
		return nil, fmt.Errorf("journal of run %s: %w", run, err)
	}
	var all []event.Envelope
	for _, kind := range kinds {
		if !event.ValidKind(kind) {
			continue
		}
		events, err := j.Read(run, kind)
		if err != nil {
			return nil, err
		}
		all = append(all, events...)
	}
	slices.SortStableFunc(all, func(a, b event.Envelope) int { return cmp.Compare(a.Time, b.Time) })
	return all, nil
}

// Verify reads the file of every event of a run, and calls each with its path and, of one that is damaged, the error.
func (j Journal) Verify(run string, each func(kind, name, path string, err error)) error {
	kinds, err := j.folders("runs", run, "events")
	if err != nil {
		return fmt.Errorf("journal of run %s: %w", run, err)
	}
	for _, kind := range kinds {
		files, err := j.files(run, kind)
		if err != nil {
			return fmt.Errorf("journal of run %s: %w", run, err)
		}
		for _, file := range files {
			name, ok := strings.CutSuffix(file, suffix)
			id, _, _ := strings.Cut(name, ".")
			if ok && digest.Valid(id) {
				_, err := j.readFile(run, kind, name, id)
				each(kind, name, j.path(run, kind, name), err)
			}
		}
	}
	return nil
}

func (j Journal) readFile(run, kind, name, id string) (event.Envelope, error) {
	b, err := os.ReadFile(j.path(run, kind, name))
	e, err := decode(b, err, run, kind, id)
	if err == nil || j.shared == nil {
		return e, err
	}
	b, missing := j.fetch(run, kind, name)
	if missing != nil {
		return e, errors.Join(err, missing)
	}
	return decode(b, nil, run, kind, id)
}

// decode returns the event in a file that should have it. readErr is the error of reading the file.
func decode(b []byte, readErr error, run, kind, id string) (event.Envelope, error) {
	if readErr != nil {
		return event.Envelope{}, readErr
	}
	if err := digest.VerifyChecksum(b); err != nil {
		return event.Envelope{}, err
	}
	e, err := event.Decode(b)
	if err == nil && (e.Run != run || e.Kind != kind || e.ID != id) {
		err = fmt.Errorf("it is the event %s %s of run %s", e.Kind, digest.Short(e.ID), e.Run)
	}
	return e, err
}

// Has reports whether there are events of the kind, be they damaged.
func (j Journal) Has(run, kind string) bool {
	files, _ := j.files(run, kind) // none: no events
	return len(files) > 0
}

// Bodies is Read with the bodies decoded. Those that are not of B's shape are left out as damaged ones are.
func Bodies[B event.Body](j Journal, run string) ([]B, error) {
	var zero B
	events, err := j.Read(run, zero.Kind())
	if err != nil {
		return nil, err
	}
	bodies := make([]B, 0, len(events))
	for _, e := range events {
		body, err := event.Into[B](e)
		if err != nil {
			j.tell(fmt.Errorf("run %s: an event of stage %s is left out: %w", run, e.Stage, err))
			continue
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

// Runs lists the runs, the most recently started last.
func (j Journal) Runs() ([]string, error) {
	all, err := j.folders("runs")
	if err != nil {
		return nil, err
	}
	type dated struct {
		run  string
		time int64
	}
	var runs []dated
	for _, run := range all {
		started, err := j.Read(run, event.RunStarted{}.Kind())
		if err != nil || len(started) == 0 {
			continue
		}
		runs = append(runs, dated{run, started[0].Time})
	}
	slices.SortFunc(runs, func(a, b dated) int { return cmp.Compare(a.time, b.time) })
	names := make([]string, len(runs))
	for i, r := range runs {
		names[i] = r.run
	}
	return names, nil
}

// Link makes runs/<run>/<stage>/<name> a relative link to the artifact ref.
func (j Journal) Link(run, stage string, ref artifact.Ref) error {
	if !digest.Valid(ref.Digest) || !artifact.ValidName(ref.Name) {
		return fmt.Errorf("%q with digest %q cannot be a file", ref.Name, ref.Digest)
	}
	return Symlink(j.fs, filepath.Join(j.dir, "objects", ref.Digest[:2], ref.Digest),
		filepath.Join(j.RunDir(run), stage, ref.Name))
}

// Symlink makes link point to target, relative to its own folder, replacing what is there. Several processes may make
// the same link at once.
func Symlink(fsys vfs.FS, target, link string) error {
	dir := filepath.Dir(link)
	if err := vfs.MkdirAll(fsys, dir); err != nil {
		return err
	}
	relative, err := filepath.Rel(dir, target)
	if err != nil {
		return err
	}
	// One temporary name for each link: what a killed process has left goes when its work is done again.
	temporary := filepath.Join(dir, ".link-"+filepath.Base(link))
	for {
		if old, err := os.Readlink(link); err == nil && old == relative {
			return nil
		}
		err := fsys.Symlink(relative, temporary)
		if err == nil {
			err = fsys.Rename(temporary, link)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return errors.Join(err, fsys.Remove(temporary))
			}
		} else if errors.Is(err, fs.ErrExist) {
			_ = fsys.Remove(temporary) // of a killed process, or of one that makes the same link now
		} else {
			return err
		}
		if err == nil {
			return fsys.SyncDir(dir)
		}
	}
}
