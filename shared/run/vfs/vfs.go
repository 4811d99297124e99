// Package vfs is the file system as the writers of a data directory use it: the few operations that change something,
// so that tests can put a disk in its place that is full, fails, or loses its power (package vfstest). Who only reads
// uses package os. The package does not know what the files are.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

// FS is the operations that change folders. All paths are paths of the operating system. None of them is durable
// before its folder is synced.
type FS interface {
	OpenFile(path string, flag int, mode fs.FileMode) (File, error) // as os.OpenFile
	Mkdir(path string, mode fs.FileMode) error
	Rename(from, to string) error
	Link(from, to string) error
	Symlink(target, path string) error
	Remove(path string) error
	// SyncDir makes the entries of a folder durable: what was created in it, renamed into it or removed from it.
	SyncDir(path string) error
}

// File is an open file, as *os.File is one. What is written is durable after Sync.
type File interface {
	io.ReadWriteSeeker
	io.Closer
	Name() string
	Fd() uintptr // for locks
	Stat() (fs.FileInfo, error)
	Chmod(mode fs.FileMode) error
	Truncate(size int64) error
	Sync() error
}

// OS is the file system of the operating system.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(path string, flag int, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err // no File that holds a nil *os.File
	}
	return f, nil
}

func (osFS) Mkdir(path string, mode fs.FileMode) error { return os.Mkdir(path, mode) }
func (osFS) Rename(from, to string) error              { return os.Rename(from, to) }
func (osFS) Link(from, to string) error                { return os.Link(from, to) }
func (osFS) Symlink(target, path string) error         { return os.Symlink(target, path) }
func (osFS) Remove(path string) error                  { return os.Remove(path) }

func (osFS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// MkdirAll creates a folder, and those above it, where they are missing. When it returns, no power cut takes the folder
// away: the folder above is synced before anything is put into a new one. A folder with something in it has been
// synced by whoever put the first thing there.
func MkdirAll(fsys FS, dir string) error {
	dir = filepath.Clean(dir)
	if used(dir) {
		return nil
	}
	above := filepath.Dir(dir)
	if above == dir {
		return nil
	}
	if err := MkdirAll(fsys, above); err != nil {
		return err
	}
	made := fsys.Mkdir(dir, 0o755)
	if made != nil {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return made
		}
	}
	err := fsys.SyncDir(above)
	if made != nil && errors.Is(err, fs.ErrPermission) {
		return nil // a folder of the user's, in one that this program may not read
	}
	return err
}

// used reports whether a folder has something in it.
func used(dir string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(1)
	return len(names) > 0
}

// CreateTemp creates a new file in dir, whose name is prefix and a random number.
func CreateTemp(fsys FS, dir, prefix string) (File, error) {
	for {
		path := filepath.Join(dir, prefix+strconv.FormatUint(rand.Uint64(), 36))
		f, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// RemoveAll removes what is at path and all that is in it. What is not there is no error.
func RemoveAll(fsys FS, path string) error {
	err := fsys.Remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, failed := os.ReadDir(path)
	if failed != nil {
		return err // no folder
	}
	for _, e := range entries {
		if err := RemoveAll(fsys, filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	err = fsys.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
