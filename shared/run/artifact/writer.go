package artifact

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"bitnet1/shared/run/vfs"
)

// Writer receives the bytes of one artifact. Nothing is visible to readers until Commit returns; Abort (or a crash)
// leaves only a temporary file that the next Open of the store sweeps.
type Writer struct {
	ref    Ref
	fs     vfs.FS
	file   vfs.File
	buffer *bufio.Writer
	hash   *blake3.Hasher
	size   int64
	place  func(temporary string, ref Ref) error
	done   bool
}

// temporaryPrefix is hidden and our own: a Folder may be full of a user's files, and what bears it is swept.
const temporaryPrefix = ".bitnet1-unfinished-"

func newWriter(fsys vfs.FS, dir string, ref Ref, place func(string, Ref) error) (*Writer, error) {
	if !ValidName(ref.Name) {
		return nil, fmt.Errorf("artifact name %q: use a plain file name of at most %d bytes", ref.Name, maxName)
	}
	f, err := createLocked(fsys, dir, temporaryPrefix, unix.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("creating %s %s: %w", ref.Kind, ref.Name, explained(err))
	}
	w := &Writer{ref: ref, fs: fsys, file: f, hash: blake3.New(), place: place}
	w.buffer = bufio.NewWriterSize(f, 1<<18)
	return w, nil
}

// createLocked creates a temporary file and locks it, exclusive or shared. The lock tells a sweep in another process
// that the writer is alive; the kernel drops it when the process dies, however it dies.
func createLocked(fsys vfs.FS, dir, prefix string, how int) (vfs.File, error) {
	for {
		f, err := vfs.CreateTemp(fsys, dir, prefix)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil && IsAt(f, f.Name()) {
			return f, nil
		}
		// A sweep came between the creation and the lock.
		_ = fsys.Remove(f.Name())
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
	}
}

// IsAt reports whether path names the open file f.
func IsAt(f interface{ Stat() (fs.FileInfo, error) }, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(open, named)
}

// Unlock ends the lock of a file that is about to be closed. Closing alone ends the lock when no process has the file
// open any more, and a process that this one is just starting has it open until it becomes another program.
func Unlock(f interface{ Fd() uintptr }) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if w.done {
		return 0, errors.New("write to a committed or aborted artifact")
	}
	n, err := w.buffer.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("writing %s %s: %w", w.ref.Kind, w.ref.Name, explained(err))
	}
	return n, nil
}

// Commit makes the bytes durable and visible and returns their reference. When it fails, the artifact is there whole or
// not at all.
func (w *Writer) Commit() (Ref, error) {
	if w.done {
		return Ref{}, errors.New("artifact is committed or aborted already")
	}
	if err := w.flush(); err != nil {
		w.Abort()
		return Ref{}, fmt.Errorf("writing %s %s: %w", w.ref.Kind, w.ref.Name, explained(err))
	}
	w.ref.Digest = hex.EncodeToString(w.hash.Sum(nil))
	w.ref.Size = w.size
	if err := w.place(w.file.Name(), w.ref); err != nil {
		w.Abort()
		return Ref{}, fmt.Errorf("storing %s: %w", w.ref, explained(err))
	}
	w.done = true
	_ = w.file.Close() // it is synced: nothing is left to fail
	return w.ref, nil
}

func (w *Writer) flush() error {
	if err := w.buffer.Flush(); err != nil {
		return err
	}
	if err := w.file.Chmod(0o444); err != nil {
		return err
	}
	return w.file.Sync()
}

// Abort discards what was written. After Commit it does nothing, so it can be deferred.
func (w *Writer) Abort() error {
	if w.done {
		return nil
	}
	w.done = true
	return errors.Join(w.fs.Remove(w.file.Name()), w.file.Close())
}

// sweep removes temporary files whose writers are gone.
func sweep(fsys vfs.FS, dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.Type().IsRegular() {
			continue
		}
		sweepFile(fsys, filepath.Join(dir, e.Name()))
	}
	return nil
}

// sweepFile removes the temporary file at path, if there is one and its writer is dead.
func sweepFile(fsys vfs.FS, path string) {
	f, err := os.Open(path)
	if err != nil {
		return // renamed or removed meanwhile
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && IsAt(f, path) {
		_ = fsys.Remove(path)
	}
}

// Settle removes what a killed writer has left beside the file at path, for a caller that finds the file written and
// does not write it again.
func Settle(fsys vfs.FS, path string) { sweepFile(fsys, temporaryOf(path)) }

// temporaryOf is where WriteFile writes what it will rename to path. There is one such name for each path: what a
// killed writer has left goes when its work is done again. It is hidden and has another ending.
func temporaryOf(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".write")
}

// WriteFile atomically replaces the file at path with b: temporary name, sync, rename, sync of the directory. It is for
// small mutable records beside the artifacts (job records, manifests of a run), not for artifacts.
func WriteFile(path string, b []byte) error { return WriteFileOn(vfs.OS, path, b) }

// WriteFileOn is WriteFile on another file system than the operating system's.
func WriteFileOn(fsys vfs.FS, path string, b []byte) error {
	return Replace(fsys, path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// Replace is WriteFileOn of what write writes.
func Replace(fsys vfs.FS, path string, write func(io.Writer) error) error {
	return explained(replace(fsys, path, write))
}

func replace(fsys vfs.FS, path string, write func(io.Writer) error) error {
	dir := filepath.Dir(path)
	if err := vfs.MkdirAll(fsys, dir); err != nil {
		return err
	}
	f, err := openLocked(fsys, temporaryOf(path))
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Truncate(0)
	if err == nil {
		err = write(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fsys.Rename(f.Name(), path)
	}
	if err != nil {
		_ = fsys.Remove(f.Name())
		return err
	}
	return fsys.SyncDir(dir)
}

// openLocked opens path, creating it when missing, and waits for its lock.
func openLocked(fsys vfs.FS, path string) (vfs.File, error) {
	for {
		f, err := fsys.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, err
		}
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		if err == nil && IsAt(f, path) {
			return f, nil
		}
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		// Whoever had the lock has renamed the file: it is not the one to write.
	}
}
