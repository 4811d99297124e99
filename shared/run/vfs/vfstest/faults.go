// Package vfstest puts disks in the place of the operating system's that fail as disks do: Recorder shows what a power
// cut leaves, Faulty fails at a chosen operation.
package vfstest

import (
	"io/fs"
	"os"
	"syscall"
	"testing"

	"bitnet1/shared/run/vfs"
)

// Dir is a folder for the length of a test, in memory where the machine has such a file system: these tests make
// thousands of small files.
func Dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bitnet1-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Fault is a way in which a disk fails.
type Fault struct {
	Name string
	Err  error
	// Fails reports whether an operation fails from then on: "create", "mkdir", "rename", "link", "symlink", "remove",
	// "syncdir", "write", "truncate" or "sync".
	Fails func(operation string) bool
	Once  bool // only one operation fails
	Short bool // a write that fails has written half
}

// Faults are the ways in which disks fail.
func Faults() []Fault {
	needsRoom := func(operation string) bool {
		return operation != "remove" && operation != "truncate" && operation != "sync" && operation != "syncdir"
	}
	syncs := func(operation string) bool { return operation == "sync" || operation == "syncdir" }
	all := func(string) bool { return true }
	return []Fault{
		{Name: "the disk is full", Err: syscall.ENOSPC, Fails: needsRoom},
		{Name: "the disk is full in the middle of a write", Err: syscall.ENOSPC, Fails: needsRoom, Short: true},
		{Name: "one operation fails", Err: syscall.EIO, Fails: all, Once: true},
		{Name: "one write is short", Err: syscall.EIO, Fails: func(o string) bool { return o == "write" },
			Once: true, Short: true},
		{Name: "one sync fails", Err: syscall.EIO, Fails: syncs, Once: true},
		{Name: "no sync succeeds", Err: syscall.EIO, Fails: syncs},
		{Name: "the disk is dead", Err: syscall.EIO, Fails: all},
		{Name: "the disk can be read only", Err: syscall.EROFS, Fails: all},
	}
}

// Faulty is a file system that fails from its At-th operation on, counted from 0.
type Faulty struct {
	Fault
	At int

	Done   int  // operations so far
	Failed bool // whether one has failed
}

func (f *Faulty) fails(operation string) bool {
	n := f.Done
	f.Done++
	if n < f.At || !f.Fails(operation) || f.Once && f.Failed {
		return false
	}
	f.Failed = true
	return true
}

func (f *Faulty) do(operation, path string, do func() error) error {
	if f.fails(operation) {
		return &fs.PathError{Op: operation, Path: path, Err: f.Err}
	}
	return do()
}

// OpenFile implements vfs.FS.
func (f *Faulty) OpenFile(path string, flag int, mode fs.FileMode) (file vfs.File, err error) {
	_, missing := os.Lstat(path)
	open := func() error {
		file, err = Unsynced.OpenFile(path, flag, mode)
		return err
	}
	if missing != nil {
		err = f.do("create", path, open)
	} else {
		err = open()
	}
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f}, nil
}

// Mkdir implements vfs.FS.
func (f *Faulty) Mkdir(path string, mode fs.FileMode) error {
	return f.do("mkdir", path, func() error { return vfs.OS.Mkdir(path, mode) })
}

// Rename implements vfs.FS.
func (f *Faulty) Rename(from, to string) error {
	return f.do("rename", from, func() error { return vfs.OS.Rename(from, to) })
}

// Link implements vfs.FS.
func (f *Faulty) Link(from, to string) error {
	return f.do("link", from, func() error { return vfs.OS.Link(from, to) })
}

// Symlink implements vfs.FS.
func (f *Faulty) Symlink(target, path string) error {
	return f.do("symlink", path, func() error { return vfs.OS.Symlink(target, path) })
}

// Remove implements vfs.FS.
func (f *Faulty) Remove(path string) error {
	return f.do("remove", path, func() error { return vfs.OS.Remove(path) })
}

// SyncDir implements vfs.FS.
func (f *Faulty) SyncDir(path string) error {
	return f.do("syncdir", path, func() error { return nil })
}

type faultyFile struct {
	vfs.File
	disk *Faulty
}

func (f *faultyFile) Write(p []byte) (n int, err error) {
	if f.disk.fails("write") {
		if f.disk.Short {
			n, _ = f.File.Write(p[:len(p)/2])
		}
		return n, &fs.PathError{Op: "write", Path: f.Name(), Err: f.disk.Err}
	}
	return f.File.Write(p)
}

func (f *faultyFile) Truncate(size int64) error {
	return f.disk.do("truncate", f.Name(), func() error { return f.File.Truncate(size) })
}

func (f *faultyFile) Sync() error { return f.disk.do("sync", f.Name(), f.File.Sync) }

// Unsynced is the operating system's file system without its syncs, for tests that take nobody's power away.
var Unsynced vfs.FS = unsynced{vfs.OS}

type unsynced struct{ vfs.FS }

func (unsynced) SyncDir(string) error { return nil }

func (u unsynced) OpenFile(path string, flag int, mode fs.FileMode) (vfs.File, error) {
	f, err := u.FS.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

type unsyncedFile struct{ vfs.File }

func (unsyncedFile) Sync() error { return nil }
