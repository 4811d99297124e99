package artifact

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/vfs"
)

// markName is the file that makes a directory a data directory. Every process that uses the directory holds a shared
// lock of the file, and whoever removes the directory an exclusive one.
const markName = ".bitnet1-data"

// mark is the content of the file.
type mark struct {
	About  string   `json:"about"`
	Others []string `json:"others"` // what was in the directory before, and is never removed with it
}

const markAbout = "This is a data directory of bitnet1. The command pipeline clean removes from " +
	"it what bitnet1 has made."

// MarkPath is the file that makes dir a data directory.
func MarkPath(dir string) string { return filepath.Join(dir, markName) }

// IsDirectory reports whether dir has the mark of a data directory.
func IsDirectory(dir string) bool {
	_, err := os.Stat(MarkPath(dir))
	return err == nil
}

// Recognize returns what was in the data directory dir before it became one. The error says so where dir is none. A
// directory of a version that wrote no mark is known by its artifacts.
func Recognize(dir string) (others []string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, markName))
	if err == nil {
		var m mark
		if err = digest.VerifyChecksum(b); err == nil {
			err = json.Unmarshal(b, &m)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w (pipeline repair makes it again)", filepath.Join(dir, markName), err)
		}
		return m.Others, nil
	}
	if n, foreign := countArtifacts(dir); n == 0 || foreign != "" {
		return nil, fmt.Errorf("%s is no data directory of this project", dir)
	}
	return nil, nil
}

// RepairMark makes the mark of a data directory again. What the damaged mark says of files that were there before is
// kept as far as it can be read.
func RepairMark(dir string) error {
	m := mark{About: markAbout, Others: []string{}}
	var before mark
	if b, err := os.ReadFile(MarkPath(dir)); err == nil && json.Unmarshal(b, &before) == nil {
		m.Others = append(m.Others, before.Others...)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return rewrite(MarkPath(dir), digest.AppendChecksum(b))
}

// rewrite writes into a file that is there: programs that use the directory hold a lock of it.
func rewrite(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// Seize marks dir, which Recognize knows, and locks it for the caller alone until the file is closed.
func Seize(dir string) (*os.File, error) {
	if err := setMark(vfs.OS, dir); err != nil {
		return nil, err
	}
	lock, err := lockMark(dir, unix.LOCK_EX)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("data directory %s is in use: let the programs that use it end first", dir)
	}
	return lock, err
}

// IsMark reports whether an entry of a data directory is its mark, or says which bucket it is attached to.
func IsMark(name string) bool {
	return strings.HasPrefix(name, markName) || strings.HasPrefix(name, bucket.FileName)
}

// RemoveMark ends that dir is a data directory.
func RemoveMark(dir string) error {
	err := os.Remove(filepath.Join(dir, bucket.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(filepath.Join(dir, markName)))
}

// occupy makes dir a data directory, unless it is one, and holds it until the file is closed.
func occupy(fsys vfs.FS, dir string) (*os.File, error) {
	if err := setMark(fsys, dir); err != nil {
		return nil, err
	}
	lock, err := lockMark(dir, unix.LOCK_SH)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data directory %s is being removed: give the command again when that is done", dir)
	}
	if err == nil {
		sweepMarks(fsys, dir, lock)
	}
	return lock, err
}

// sweepMarks removes what was left by a program that was to set the mark, and died: also after it had set the mark,
// which then has two names.
func sweepMarks(fsys vfs.FS, dir string, mark *os.File) {
	left, _ := fs.Glob(os.DirFS(dir), markName+"-*") // none: nothing is left
	for _, name := range left {
		if path := filepath.Join(dir, name); IsAt(mark, path) {
			_ = fsys.Remove(path)
		}
	}
	_ = sweep(fsys, dir, markName+"-")
}

// occupyAround holds the data directory that path lies in; nil where it lies in none.
func occupyAround(path string) (*os.File, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, err
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, markName)); err == nil {
			return occupy(vfs.OS, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil, nil
		}
	}
}

// setMark marks dir, and notes what is in it that is not the project's.
func setMark(fsys vfs.FS, dir string) error {
	path := filepath.Join(dir, markName)
	if exists(path) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if exists(path) { // another process has set it, and what is listed may be its work
		return nil
	}
	m := mark{About: markAbout, Others: []string{}}
	n, foreign := countArtifacts(dir)
	if foreign != "" {
		return fmt.Errorf("%s is there and is not this project's", foreign)
	}
	if n == 0 {
		for _, e := range entries {
			if e.Name() != objectsName && e.Name() != temporaryName && !IsMark(e.Name()) {
				m.Others = append(m.Others, e.Name())
			}
		}
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return explained(createWhole(fsys, path, digest.AppendChecksum(b)))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// createWhole creates a file with its content at once. One that is there already stays as it is. Until it returns, the
// file is locked as by those who use it: for a moment it has its temporary name, too, which no sweep may take then.
func createWhole(fsys vfs.FS, path string, b []byte) error {
	f, err := createLocked(fsys, filepath.Dir(path), filepath.Base(path)+"-", unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer f.Close()
	defer Unlock(f)
	defer func() { _ = fsys.Remove(f.Name()) }()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	if err := fsys.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

// lockMark locks dir's mark, shared or exclusive, without waiting.
func lockMark(dir string, how int) (*os.File, error) {
	path := filepath.Join(dir, markName)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == nil && !IsAt(f, path) {
		err = unix.EWOULDBLOCK // whoever had the lock has removed the file
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// countArtifacts counts the artifacts in dir's store, up to the first entry that no store has, which it names: other
// programs keep objects by digest, too.
func countArtifacts(dir string) (n int, foreign string) {
	objects := filepath.Join(dir, objectsName)
	folders, _ := os.ReadDir(objects) // none: no artifacts
	for _, folder := range folders {
		files, err := os.ReadDir(filepath.Join(objects, folder.Name()))
		if err != nil || len(folder.Name()) != 2 {
			return n, filepath.Join(objects, folder.Name())
		}
		i := slices.IndexFunc(files, func(f fs.DirEntry) bool {
			return !digest.Valid(f.Name()) || !strings.HasPrefix(f.Name(), folder.Name())
		})
		if i >= 0 {
			return n, filepath.Join(objects, folder.Name(), files[i].Name())
		}
		n += len(files)
	}
	return n, ""
}
