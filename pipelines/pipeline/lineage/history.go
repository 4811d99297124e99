package lineage

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
)

// History is what is known of jobs: the records and events of a data directory, and the records of folders into which
// one-shot runs wrote.
type History struct {
	store   *artifact.Store
	journal journal.Journal
	runs    []string
	folders []string

	made      map[string][]*record.Record // by digest of an artifact
	announced map[string][]event.Envelope // by key of a job, and by digest of an artifact that is mentioned
	events    map[string]event.Envelope   // by run and id
	ofRun     map[string][]event.Envelope // in the order of their time
	files     map[string]string           // path of an artifact in a folder, by digest
	refs      map[string]artifact.Ref     // by digest
}

// Open reads the history of a data directory. Folders are the output folders of one-shot runs.
func Open(data string, folders ...string) (*History, error) {
	h := &History{store: artifact.ReadOnly(data), journal: journal.Open(data), folders: folders,
		made: map[string][]*record.Record{}, announced: map[string][]event.Envelope{},
		events: map[string]event.Envelope{}, ofRun: map[string][]event.Envelope{}, files: map[string]string{},
		refs: map[string]artifact.Ref{}}
	if err := h.addRecords(record.Root(h.store), ""); err != nil {
		return nil, err
	}
	for _, folder := range folders {
		if err := h.addRecords(filepath.Join(folder, record.OneShot), folder); err != nil {
			return nil, err
		}
	}
	var err error
	if h.runs, err = h.journal.Runs(); err != nil {
		return nil, err
	}
	for _, run := range h.runs {
		events, err := h.journal.All(run)
		if err != nil {
			return nil, err
		}
		h.ofRun[run] = events
		for _, e := range events {
			h.addEvent(e)
		}
	}
	return h, nil
}

func (h *History) addRecords(root, folder string) error {
	all, err := record.Finished(root)
	if err != nil {
		return err
	}
	for _, r := range all {
		for _, ref := range r.Own() {
			h.made[ref.Digest] = append(h.made[ref.Digest], r)
			h.refs[ref.Digest] = ref
			path := filepath.Join(folder, ref.Name)
			if _, err := os.Stat(path); folder != "" && err == nil {
				h.files[ref.Digest] = path
			}
		}
	}
	return nil
}

func (h *History) addEvent(e event.Envelope) {
	h.events[e.Run+" "+e.ID] = e
	if e.Job != "" {
		h.announced[e.Job] = append(h.announced[e.Job], e)
	}
	for _, ref := range record.Mentioned(e.Body) {
		h.announced[ref.Digest] = append(h.announced[ref.Digest], e)
		if _, known := h.refs[ref.Digest]; !known {
			h.refs[ref.Digest] = ref
		}
	}
}

// path is where the bytes of an artifact are, unchecked; "" where they are gone.
func (h *History) path(ref artifact.Ref) string {
	if path := h.files[ref.Digest]; path != "" {
		return path
	}
	path := filepath.Join(h.store.Dir(), "objects", ref.Digest[:2], ref.Digest)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// Resolve finds the artifact that a text names: a file, RUN/NAME or RUN/STAGE/NAME, or the beginning of a digest. It
// returns the run in which it was found, if any.
func (h *History) Resolve(text string) (sum, run string, err error) {
	if info, err := os.Stat(text); err == nil && info.Mode().IsRegular() {
		return h.resolveFile(text)
	}
	if run, name, ok := strings.Cut(text, "/"); ok && slices.Contains(h.runs, run) {
		sum, err := h.resolveName(run, name)
		return sum, run, err
	}
	var found []string
	for _, sum := range slices.Sorted(maps.Keys(h.refs)) {
		if len(text) >= 4 && strings.HasPrefix(sum, text) {
			found = append(found, sum)
		}
	}
	switch len(found) {
	case 0:
		return "", "", fmt.Errorf("%s is no file, no RUN/NAME and no beginning of a digest that %s knows: "+
			"pipeline runs lists the runs, whose files are in %s", text, h.store.Dir(), filepath.Join(h.store.Dir(), "runs"))
	case 1:
		return found[0], "", nil
	}
	var names []string
	for _, sum := range found {
		names = append(names, h.refs[sum].String())
	}
	return "", "", fmt.Errorf("%s begins the digests of %d artifacts, give more of it: %s", text, len(found),
		strings.Join(names, "; "))
}

// resolveFile finds a file by its content. People's links and the objects themselves have their digest as a name.
func (h *History) resolveFile(path string) (sum, run string, err error) {
	if absolute, err := filepath.Abs(path); err == nil {
		if root, err := filepath.Abs(filepath.Join(h.store.Dir(), "runs")); err == nil {
			if inside, ok := strings.CutPrefix(absolute, root+string(filepath.Separator)); ok {
				run, _, _ = strings.Cut(inside, string(filepath.Separator))
			}
		}
	}
	if real, err := filepath.EvalSymlinks(path); err == nil && digest.Valid(filepath.Base(real)) {
		return filepath.Base(real), run, nil
	}
	if sum, _, err = digest.File(path); err != nil {
		return "", "", err
	}
	if _, known := h.refs[sum]; !known {
		return "", "", fmt.Errorf("%s (%s) was made by no job that is known here: name the data directory with --data, or "+
			"the folder of its one-shot run with --folder", path, digest.Short(sum))
	}
	return sum, run, nil
}

// resolveName finds a file of a run by its name, with or without the folders that it is in. What was made with the
// run's own parameters comes before what was made with others, which lies in folders of its own.
func (h *History) resolveName(run, name string) (string, error) {
	found := map[string]string{} // path by digest
	root := h.journal.RunDir(run)
	for _, pattern := range []string{name, filepath.Join("*", name), filepath.Join("*", "*", name)} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return "", err
		}
		for _, path := range paths {
			if target, err := os.Readlink(path); err == nil && digest.Valid(filepath.Base(target)) {
				found[filepath.Base(target)] = path
			}
		}
		if len(found) > 0 {
			break
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("run %s has no file %s: its files are in %s", run, name, root)
	case 1:
		for sum := range found {
			return sum, nil
		}
	}
	var paths []string
	for _, path := range found {
		relative, err := filepath.Rel(filepath.Dir(root), path)
		if err != nil {
			return "", err
		}
		paths = append(paths, relative)
	}
	slices.Sort(paths)
	return "", fmt.Errorf("run %s has several files %s: give one of %s", run, name, strings.Join(paths, ", "))
}

// makers are the records of the jobs that made an artifact, those of a run first.
func (h *History) makers(sum, run string) []*record.Record {
	all := slices.Clone(h.made[sum])
	rank := func(r *record.Record) int {
		switch e, ok := h.announcement(r.Key, run); {
		case !ok:
			return 2
		case e.Run != run:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b *record.Record) int { return cmp.Compare(rank(a), rank(b)) })
	return all
}

// announcement is an event that a job announced, in a run if there is one. The last one says best what was answered.
func (h *History) announcement(key, run string) (found event.Envelope, ok bool) {
	for _, e := range h.announced[key] {
		if e.Job != key {
			continue
		}
		better := !ok || e.Run == run && found.Run != run || e.Run == found.Run && found.Input == ""
		if better {
			found, ok = e, true
		}
	}
	return found, ok
}

// Mentions is a run of which an event mentions an artifact; "" if there is none.
func (h *History) Mentions(sum string) string {
	for _, e := range h.announced[sum] {
		return e.Run
	}
	return ""
}

// maker is the event by which an artifact was announced first, of a job whose record is lost: its input mentions other
// artifacts.
func (h *History) maker(sum, run string) (found event.Envelope, ok bool) {
	for _, e := range h.announced[sum] {
		if e.Job == sum || e.Job == "" {
			continue
		}
		input := h.events[e.Run+" "+e.Input]
		passed := slices.ContainsFunc(record.Mentioned(input.Body), func(r artifact.Ref) bool { return r.Digest == sum })
		if !passed && (!ok || e.Run == run && found.Run != run) {
			found, ok = e, true
		}
	}
	return found, ok
}

var errNoEvent = errors.New("the event that it answered is not in the journal")

// answered are the events that a job answered, of which it announced e. Inputs are those of its record; nil: the record
// is lost, and a set counts as answered as a whole.
func (h *History) answered(e event.Envelope, inputs []string) ([]event.Envelope, error) {
	in, ok := h.events[e.Run+" "+e.Input]
	if !ok {
		if in, ok = h.byInputs(e.Run, inputs); !ok {
			return nil, errNoEvent
		}
	}
	if in.Part.Count == 0 || e.Part.Count > 0 {
		return []event.Envelope{in}, nil
	}
	parts := make([]event.Envelope, 0, len(h.ofRun[e.Run]))
	for _, other := range h.ofRun[e.Run] {
		if other.Kind != in.Kind || other.Part.Count != in.Part.Count {
			continue
		}
		reads := func(r artifact.Ref) bool { return inputs == nil || slices.Contains(inputs, r.Digest) }
		if slices.ContainsFunc(record.Mentioned(other.Body), reads) {
			parts = append(parts, other)
		}
	}
	if len(parts) == 0 {
		return []event.Envelope{in}, nil
	}
	slices.SortStableFunc(parts, func(a, b event.Envelope) int { return cmp.Compare(a.Part.Index, b.Part.Index) })
	return parts, nil
}

// byInputs finds the first event by the inputs of a job that answered it: events of older versions do not say what they
// answer.
func (h *History) byInputs(run string, inputs []string) (event.Envelope, bool) {
	for _, e := range h.ofRun[run] {
		if own := inputsOf(e); len(own) > 0 && len(own) <= len(inputs) && slices.Equal(own, inputs[:len(own)]) {
			return e, true
		}
	}
	return event.Envelope{}, false
}

// inputsOf are the inputs that an event is to a job; nil of kinds that this program does not know.
func inputsOf(e event.Envelope) []string {
	for _, zero := range event.Kinds() {
		if zero.Kind() != e.Kind {
			continue
		}
		body := reflect.New(reflect.TypeOf(zero))
		if event.Unmarshal(e.Body, body.Interface()) == nil {
			return body.Elem().Interface().(event.Body).Inputs()
		}
	}
	return nil
}
