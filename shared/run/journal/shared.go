package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"bitnet1/shared/run/artifact"
)

// Where the data directory is attached to a bucket, an event is written into the bucket first: the bucket has the
// events of all hosts, and the folder those that this host has written or read.

// key is where the bucket has an event, or the events of a kind.
func key(run, kind, file string) string { return path.Join("runs", run, "events", kind, file) }

// keep writes the file of an event.
func (j Journal) keep(run, kind, name string, b []byte) error {
	if j.shared != nil {
		if err := j.shared.Put(key(run, kind, name+suffix), b); err != nil {
			return err
		}
	}
	return artifact.WriteFileOn(j.fs, j.path(run, kind, name), b)
}

// fetch copies the file of an event from the bucket.
func (j Journal) fetch(run, kind, name string) ([]byte, error) {
	b, err := j.shared.Get(key(run, kind, name+suffix))
	if err != nil {
		return nil, err
	}
	return b, artifact.WriteFileOn(j.fs, j.path(run, kind, name), b)
}

// files lists the files of a run's events of a kind, sorted; none where there is no such run or kind.
func (j Journal) files(run, kind string) ([]string, error) {
	names, err := namesIn(j.kindDir(run, kind))
	if err != nil || j.shared == nil {
		slices.Sort(names)
		return names, err
	}
	there, err := j.shared.List(key(run, kind, "") + "/")
	if err != nil {
		return nil, err
	}
	for _, o := range there {
		names = append(names, path.Base(o.Key))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// changed is when the folder of a run's events of a kind was changed last, by the clock of its file system; zero where
// that does not say whether there are new events.
func (j Journal) changed(run, kind string) time.Time {
	info, err := os.Stat(j.kindDir(run, kind))
	if err != nil || j.shared != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// folders lists the folders in a folder of the data directory, sorted; none where the folder is missing.
func (j Journal) folders(in ...string) ([]string, error) {
	names, err := namesIn(filepath.Join(append([]string{j.dir}, in...)...))
	if err != nil || j.shared == nil {
		slices.Sort(names)
		return names, err
	}
	there, err := j.shared.Folders(path.Join(in...) + "/")
	if err != nil {
		return nil, err
	}
	names = append(names, there...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

func namesIn(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Remove removes a run: its events, links and logs.
func (j Journal) Remove(run string) error {
	if j.shared != nil {
		if err := j.shared.RemoveAll(path.Join("runs", run) + "/"); err != nil {
			return fmt.Errorf("removing run %s: %w", run, err)
		}
	}
	return os.RemoveAll(j.RunDir(run))
}
