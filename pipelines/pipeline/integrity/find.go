// Package integrity finds the files of a data directory whose bytes are not those that were written, and makes them
// again: an artifact by doing the job again that made it, an event from the event server or from the record of its job.
// No launcher may be at work in the directory.
package integrity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/record"
)

// Kinds of damaged files.
const (
	Artifact    = "artifact"
	Record      = "record"      // of a finished job
	Unfinished  = "unfinished"  // a file of an unfinished job
	Event       = "event"       // in a journal
	Link        = "link"        // from a run's folder to an artifact
	Commands    = "commands"    // that began a run and went on with it
	Declaration = "declaration" // what a stage says of its results
	Mark        = "mark"        // of a data directory
	EventServer = "event server"
)

// Finding is a damaged file.
type Finding struct {
	Kind    string `json:"kind"`
	Path    string `json:"path"`
	Problem string `json:"problem"`
	Run     string `json:"run,omitempty"` // in whose folder it is

	digest string // of an artifact
	key    string // of a record
	event  eventName
}

// eventName is how the journal of a run names an event.
type eventName struct {
	kind, id string
	job      string // where the file is that of another job which found the same
}

// Report is what was found in a data directory.
type Report struct {
	Findings  []Finding
	Missing   []artifact.Ref // artifacts that events mention and that are not there: pipeline gc may have freed them
	Checked   int            // files
	Bytes     int64          // of artifacts
	Unchecked int            // files that only people read: logs, reports
}

// Find checks the files of a data directory.
func Find(dir string) (*Report, error) {
	f := &search{dir: dir, report: &Report{}, there: map[string]bool{}}
	for _, step := range []func() error{f.mark, f.artifacts, f.jobs, f.runs, f.eventServer} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return f.report, nil
}

type search struct {
	dir    string
	report *Report
	there  map[string]bool // digests of artifacts
}

// check counts a file, and notes that it is damaged if err says so.
func (s *search) check(found Finding, err error) {
	s.report.Checked++
	if err != nil {
		found.Problem = err.Error()
		s.report.Findings = append(s.report.Findings, found)
	}
}

func (s *search) mark() error {
	_, err := artifact.Recognize(s.dir)
	s.check(Finding{Kind: Mark, Path: artifact.MarkPath(s.dir)}, err)
	return nil
}

func (s *search) artifacts() error {
	all, err := artifact.Objects(s.dir)
	for _, o := range all {
		path := artifact.ObjectPath(s.dir, o.Digest)
		sum, _, err := digest.File(path)
		if err == nil && sum != o.Digest {
			err = fmt.Errorf("%w: its bytes have %s", artifact.ErrDamaged, digest.Short(sum))
		}
		s.there[o.Digest] = true
		s.check(Finding{Kind: Artifact, Path: path, digest: o.Digest}, err)
		s.report.Bytes += o.Size
	}
	return err
}

// jobs checks the records of finished jobs, and all files of the others.
func (s *search) jobs() error {
	root := record.Root(artifact.ReadOnly(s.dir))
	keys, err := fs.Glob(os.DirFS(root), "*/*")
	if err != nil {
		return err
	}
	for _, key := range keys {
		dir, key := filepath.Join(root, key), filepath.Base(key)
		if !digest.Valid(key) {
			continue
		}
		if path := filepath.Join(dir, record.FileName); exists(path) {
			_, err := record.Find(root, key)
			s.check(Finding{Kind: Record, Path: path, key: key}, err)
		}
		if err := s.unfinished(dir); err != nil {
			return err
		}
	}
	return nil
}

// unfinished checks the files in a job's folder other than its record.
func (s *search) unfinished(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == record.FileName || d.Name() == record.LockName ||
			strings.HasPrefix(d.Name(), ".") { // a file that was being written
			return err
		}
		has, err := hasChecksum(path)
		switch {
		case err != nil || has:
			if err == nil {
				_, err = readVerified(path)
			}
		case exists(artifact.LengthsName(path)):
			err = artifact.VerifyLengths(path)
		case artifact.IsKept(d.Name()):
			err = artifact.VerifyKept(path)
		default:
			s.report.Unchecked++
			return nil
		}
		s.check(Finding{Kind: Unfinished, Path: path}, err)
		return nil
	})
}

// hasChecksum reports whether a file has a checksum. A large file has none.
func hasChecksum(path string) (bool, error) {
	if info, err := os.Stat(path); err != nil || info.Size() > event.MaxSize+digest.ChecksumSize {
		return false, err
	}
	b, err := os.ReadFile(path)
	return digest.HasChecksum(b), err
}

// readVerified reads a file and verifies its checksum, if it has one.
func readVerified(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = digest.VerifyChecksum(b)
	}
	return b, err
}

// verifyJSON verifies a file of JSON, which may have lost its end, and its checksum with the end.
func verifyJSON(path string) error {
	b, err := readVerified(path)
	if err == nil && !json.Valid(b) {
		err = errors.New("the file is damaged: it is not JSON to its end")
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (s *search) runs() error {
	j := journal.Open(s.dir)
	folders, err := os.ReadDir(filepath.Join(s.dir, "runs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, folder := range folders {
		if run := folder.Name(); folder.IsDir() && event.ValidRun(run) {
			if err := s.run(j, run); err != nil {
				return err
			}
		}
	}
	return err
}

func (s *search) run(j journal.Journal, run string) error {
	err := j.Verify(run, func(kind, name, path string, err error) {
		id, job, _ := strings.Cut(name, ".")
		s.check(Finding{Kind: Event, Path: path, Run: run, event: eventName{kind, id, job}}, err)
	})
	if err != nil {
		return err
	}
	_, err = overview.Commands(j, run)
	s.check(Finding{Kind: Commands, Path: overview.CommandsPath(j, run), Run: run}, err)
	events, err := j.Telling(func(error) {}).All(run)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, e := range events {
		for _, ref := range record.Mentioned(e.Body) {
			known[ref.Digest] = true
			if !s.there[ref.Digest] {
				s.there[ref.Digest] = true // once is enough
				s.report.Missing = append(s.report.Missing, ref)
			}
		}
	}
	return s.folder(j, run, known)
}

// folder checks the links and declarations in a run's folder. known are the artifacts of the run.
func (s *search) folder(j journal.Journal, run string, known map[string]bool) error {
	declarations := filepath.Join(j.RunDir(run), "results")
	return filepath.WalkDir(j.RunDir(run), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "events" && filepath.Dir(path) == j.RunDir(run):
			return fs.SkipDir
		case d.Type()&fs.ModeSymlink != 0:
			s.check(Finding{Kind: Link, Path: path, Run: run}, s.verifyLink(path, known))
		case filepath.Dir(path) == declarations && filepath.Ext(path) == ".json":
			s.check(Finding{Kind: Declaration, Path: path, Run: run}, verifyJSON(path))
		case d.Type().IsRegular() && path != overview.CommandsPath(j, run):
			s.report.Unchecked++
		}
		return nil
	})
}

// verifyLink checks that a link leads to a file, or to one that was removed: an artifact of the run, a file of a job.
func (s *search) verifyLink(path string, known map[string]bool) error {
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil || known[filepath.Base(target)] {
		return nil
	}
	to, err := filepath.Rel(s.dir, filepath.Join(filepath.Dir(path), target))
	if err == nil && strings.HasPrefix(to, "jobs"+string(filepath.Separator)) {
		return nil
	}
	return fmt.Errorf("it leads to %s, which is no artifact of the run", target)
}

func (s *search) eventServer() error {
	all, err := bus.FindDamage(filepath.Join(s.dir, "nats"))
	for _, d := range all {
		s.check(Finding{Kind: EventServer, Path: d.Path}, d.Err)
	}
	return err
}
