// Package index knows what is in a data directory and follows the changes: the runs with their states, parameters and
// results (Row), how they have trained (Curve), and the details of one (Details). It reads what is new since it looked
// last, and what it keeps is bounded for each run. It writes nothing, and it needs no event server.
package index

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/progress"
)

// Index is the index of one data directory. It is safe for concurrent use.
type Index struct {
	dir     string
	journal journal.Journal
	store   *artifact.Store
	roots   []string // where the files of runs may lie, without symbolic links

	mu      sync.Mutex
	runs    map[string]*run
	order   []*run // by number
	version uint64 // of the last change
	next    int    // of those runs that are looked at now and then, the next
	ready   bool   // all runs were read once

	parameters dictionary[[2]string]
	columns    dictionary[Column]
}

// run is what the index knows of a run.
type run struct {
	Row
	version uint64 // when it changed last
	events  string // what its row was read from
	logged  string // what the last line of its log was read from
	folder  string // with the log
	curve   *Curve // nil unless it is watched
	watched int    // by how many
	work    map[string]Work
	begun   map[string]begun // jobs, by stage
}

// begun is when a job was first heard of, and what share of it was done then.
type begun struct {
	job   string
	at    time.Time
	share float64
}

// Open returns the index of a data directory, which is empty until the first Refresh.
func Open(dir string) (*Index, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("data directory %s: it is a file", dir)
	}
	x := &Index{
		dir: dir, store: artifact.ReadOnly(dir), runs: map[string]*run{},
		journal:    journal.Open(dir).Telling(func(error) {}), // a row says what is damaged
		parameters: newDictionary[[2]string](), columns: newDictionary[Column](),
	}
	for _, name := range []string{".", "runs", "objects", "jobs"} { // which may be links to a larger disk
		if real, err := filepath.EvalSymlinks(filepath.Join(dir, name)); err == nil {
			x.roots = append(x.roots, real)
		}
	}
	return x, nil
}

// open opens a file of a run for reading. A link may not lead out of the data directory, and only regular files are
// opened.
func (x *Index) open(path string) (*os.File, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(x.roots, func(root string) bool {
		inside, err := filepath.Rel(root, real)
		return err == nil && filepath.IsLocal(inside)
	}) {
		return nil, fmt.Errorf("%s leads out of the data directory", path)
	}
	f, err := os.OpenFile(real, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would make the program wait
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is no file", path)
	}
	return f, nil
}

// few is how many of the runs that nothing is expected of are looked at in one Refresh.
const few = 100

// Refresh looks for changes: of every run at first, then of new and removed runs, of the run that a launcher drives, of
// those that are watched, and of some of the others in turn. What it finds is visible as soon as it is found.
func (x *Index) Refresh() error {
	driven := overview.Driven(x.dir)
	names, err := x.list(driven)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	for _, r := range x.due(names, there, driven) {
		x.look(r, driven)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ready = true
	return nil
}

// list are the names of the runs: the one that is driven, then those that were begun or changed last.
func (x *Index) list(driven string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(x.dir, "runs"))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	changed := map[string]time.Time{}
	for _, e := range entries {
		if !event.ValidRun(e.Name()) {
			continue
		}
		if info, err := os.Stat(filepath.Join(x.dir, "runs", e.Name(), "events")); err == nil && info.IsDir() {
			changed[e.Name()] = info.ModTime()
		}
	}
	names := slices.Collect(maps.Keys(changed))
	if _, ok := changed[driven]; ok {
		changed[driven] = time.Now().Add(time.Hour)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(changed[b].Compare(changed[a]), cmp.Compare(a, b)) })
	return names, nil
}

// due forgets the runs that are gone and returns those to look at.
func (x *Index) due(names []string, there map[string]bool, driven string) (all []*run) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for name, r := range x.runs {
		if !there[name] {
			delete(x.runs, name)
			r.Gone, r.curve = true, nil
			x.changed(r)
		}
	}
	var others []*run
	for _, name := range names {
		switch r := x.runs[name]; {
		case r == nil:
			r = &run{Row: Row{Number: len(x.order), Run: name}}
			x.runs[name], x.order = r, append(x.order, r)
			all = append(all, r)
		case name == driven || r.watched > 0 || r.State == overview.Running:
			all = append(all, r)
		default:
			others = append(others, r)
		}
	}
	for range min(few, len(others)) {
		x.next = (x.next + 1) % len(others)
		all = append(all, others[x.next])
	}
	return all
}

// changed notes that a run is not as it was. The caller holds the lock.
func (x *Index) changed(r *run) {
	x.version++
	r.version = x.version
}

// look reads what is new of a run.
func (x *Index) look(r *run, driven string) {
	x.mu.Lock()
	row, events, logged, folder, watched := r.Row, r.events, r.logged, r.folder, r.watched > 0
	x.mu.Unlock()
	now := x.stamp(row.Run, driven)
	if now != events {
		row, folder = x.read(row)
	}
	path := filepath.Join(x.dir, "runs", row.Run, folder)
	tail := x.readTail(path, logged, &row)
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.Gone {
		return
	}
	if now != events || tail != logged {
		r.Row, r.events, r.logged, r.folder = row, now, tail, folder
		x.changed(r)
	}
	if watched && r.curve != nil {
		if err := r.curve.follow(x.open, path); err != nil && r.Problem == "" {
			r.Problem = err.Error()
			x.changed(r)
		}
	}
}

// stamp is another one when events were added to a run, when a stage has declared its results, and when a launcher
// begins or ends.
func (x *Index) stamp(name, driven string) string {
	dir := filepath.Join(x.dir, "runs", name)
	stamp := fmt.Sprint(name == driven)
	for _, sub := range []string{"results", "launcher"} {
		if info, err := os.Stat(filepath.Join(dir, sub)); err == nil {
			stamp += fmt.Sprint(" ", info.ModTime().UnixNano())
		}
	}
	kinds, _ := os.ReadDir(filepath.Join(dir, "events")) // of a run that is being removed: none
	for _, kind := range kinds {
		if info, err := kind.Info(); err == nil {
			stamp += fmt.Sprint(" ", kind.Name(), info.ModTime().UnixNano())
		}
	}
	return stamp
}

// Changes are the rows that changed after a version, at most n of them, those that changed first in front; version is
// that of the last one. more reports whether there are others.
func (x *Index) Changes(after uint64, n int) (rows []Row, version uint64, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	rows = []Row{} // a list, be it empty
	var found []*run
	for _, r := range x.order {
		if r.version > after {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *run) int { return cmp.Compare(a.version, b.version) })
	if more = len(found) > n; more {
		found = found[:n]
	}
	version = after
	for _, r := range found {
		row := r.Row
		for _, stage := range slices.Sorted(maps.Keys(r.work)) {
			if w := r.work[stage]; r.State == overview.Running && time.Since(w.said) < forgotten {
				row.Work = append(row.Work, w)
			}
		}
		rows, version = append(rows, row), r.version
	}
	return rows, version, more
}

// forgotten is how long a stage is believed to be at the work that it spoke of last.
const forgotten = 15 * time.Second

// Hear takes what a stage of a run says of the job that it is at.
func (x *Index) Hear(name string, p bus.Progress) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.runs[name]
	if r == nil {
		return
	}
	if r.work == nil {
		r.work, r.begun = map[string]Work{}, map[string]begun{}
	}
	b, now := r.begun[p.Stage], time.Now()
	if b.job != p.Job {
		b = begun{p.Job, now, p.Fraction()}
		r.begun[p.Stage] = b
	}
	line := progress.Line{Report: p.Report, Left: progress.LeftOf(p.Report, b.share, now.Sub(b.at))}
	r.work[p.Stage] = Work{p.Stage, p.Fraction(), strings.TrimSpace(line.Text(0)), now}
	x.changed(r)
}

// Names are the runs with the given numbers; a number that no run has is left out.
func (x *Index) Names(numbers []int) (names []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, n := range numbers {
		if n >= 0 && n < len(x.order) && !x.order[n].Gone {
			names = append(names, x.order[n].Run)
		}
	}
	return names
}

// Ready reports whether every run was read once.
func (x *Index) Ready() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ready
}

// Count is how many runs there are.
func (x *Index) Count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.runs)
}

// Watch has the curves of runs read and followed, until the caller calls release.
func (x *Index) Watch(names []string) (release func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []*run
	for _, name := range names {
		if r := x.runs[name]; r != nil {
			r.watched++
			all = append(all, r)
		}
	}
	return sync.OnceFunc(func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, r := range all {
			if r.watched--; r.watched == 0 {
				r.curve = nil
			}
		}
	})
}

// WithCurve calls f with the curve of a run that is watched, which it must not keep. The first call for a run reads its
// log.
func (x *Index) WithCurve(name string, f func(number int, c *Curve)) {
	x.mu.Lock()
	r := x.runs[name]
	if r == nil || r.watched == 0 {
		x.mu.Unlock()
		return
	}
	unread, path := r.curve == nil, filepath.Join(x.dir, "runs", name, r.folder)
	x.mu.Unlock()
	if unread {
		c := newCurve()
		err := c.follow(x.open, path)
		x.mu.Lock()
		if r.curve == nil && r.watched > 0 {
			r.curve = c
		}
		if err != nil {
			r.Problem = err.Error()
			x.changed(r)
		}
		x.mu.Unlock()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.curve != nil {
		f(r.Number, r.curve)
	}
}
