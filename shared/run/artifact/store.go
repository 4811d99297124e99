package artifact

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/vfs"
)

// Space is where a job finds its inputs and puts its outputs: the shared content-addressed Store, or a plain Folder for
// one-shot use.
type Space interface {
	// Create starts a new artifact. name is for people: the same name may be used for different bytes in a Store, and
	// replaces the file in a Folder.
	Create(kind, mediaType, name string) (*Writer, error)
	// Path returns the file that holds ref's bytes, after checking its digest.
	Path(ref Ref) (string, error)
	// Has reports, without reading the bytes, whether a file that can be ref's is there.
	Has(ref Ref) bool
}

// Store is the content-addressed store under one data directory:
//
//	objects/ab/abcd…   the artifacts, read-only, named by digest
//	tmp/               artifacts being written
//	.bitnet1-data      the mark of a data directory
//
// A data directory that is attached to a bucket (package bucket) has copies of what is in the bucket.
//
// While it is reachable, nobody removes the data directory.
type Store struct {
	fs     vfs.FS
	dir    string
	use    *os.File       // the lock that says so; nil: see ReadOnly
	shared *bucket.Bucket // that dir is attached to, with the artifacts of all hosts; nil: none

	mu       sync.Mutex
	verified map[string]bool // digests whose file was checked by this process
}

// Open opens the store under dir, creating it when missing, and removes what writers that died have left in tmp.
func Open(dir string) (*Store, error) { return OpenOn(vfs.OS, dir) }

// OpenOn is Open on another file system than the operating system's.
func OpenOn(fsys vfs.FS, dir string) (*Store, error) {
	s := ReadOnly(dir)
	s.fs = fsys
	if err := s.open(); err != nil {
		if s.use != nil {
			_ = s.use.Close()
		}
		return nil, fmt.Errorf("%s %w: %w", dir, ErrDirectory, err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if err := vfs.MkdirAll(s.fs, s.dir); err != nil {
		return err
	}
	if s.use, err = occupy(s.fs, s.dir); err != nil {
		return err
	}
	for _, d := range []string{s.objects(), s.temporary()} {
		if err := vfs.MkdirAll(s.fs, d); err != nil {
			return err
		}
	}
	probe, err := createLocked(s.fs, s.temporary(), temporaryPrefix, unix.LOCK_EX)
	if err != nil {
		return err
	}
	_ = probe.Close() // and swept with the rest
	return sweep(s.fs, s.temporary(), temporaryPrefix)
}

// ReadOnly is the store under dir for a caller that only reads, and that need not be allowed to write there. Nothing is
// created, and the store may be removed while the caller reads.
func ReadOnly(dir string) *Store {
	return &Store{fs: vfs.OS, dir: dir, shared: bucket.Of(dir), verified: map[string]bool{}}
}

// Dir is the data directory.
func (s *Store) Dir() string { return s.dir }

// DirectoryName says where the data directory dir lies, on whichever machine.
func DirectoryName(dir string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	return host + ":" + dir
}

const (
	objectsName   = "objects"
	temporaryName = "tmp"
)

func (s *Store) objects() string   { return filepath.Join(s.dir, objectsName) }
func (s *Store) temporary() string { return filepath.Join(s.dir, temporaryName) }

func (s *Store) object(digest string) string {
	return filepath.Join(s.objects(), digest[:2], digest)
}

// Create implements Space.
func (s *Store) Create(kind, mediaType, name string) (*Writer, error) {
	return newWriter(s.fs, s.temporary(), Ref{Kind: kind, MediaType: mediaType, Name: name}, s.place)
}

func (s *Store) place(temporary string, ref Ref) error {
	if s.shared != nil { // first, so that what is in the folder is in the bucket
		if err := s.shared.Upload(objectKey(ref.Digest), temporary); err != nil {
			return err
		}
	}
	return s.keep(temporary, ref)
}

func (s *Store) keep(temporary string, ref Ref) error {
	final := s.object(ref.Digest)
	if err := vfs.MkdirAll(s.fs, filepath.Dir(final)); err != nil {
		return err
	}
	// The same bytes may be there already. Renaming over them is harmless and also repairs a copy that was damaged since.
	if err := s.fs.Rename(temporary, final); err != nil {
		return err
	}
	return s.fs.SyncDir(filepath.Dir(final))
}

// Path implements Space. The digest is checked the first time a process asks for an artifact.
func (s *Store) Path(ref Ref) (string, error) {
	if !digest.Valid(ref.Digest) {
		return "", fmt.Errorf("%s: %q is not a digest", ref, ref.Digest)
	}
	path := s.object(ref.Digest)
	s.mu.Lock()
	seen := s.verified[ref.Digest]
	s.mu.Unlock()
	if seen {
		return path, nil
	}
	err := verify(path, ref)
	if err != nil && s.shared != nil {
		err = s.fetch(ref)
	}
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	s.verified[ref.Digest] = true
	s.mu.Unlock()
	return path, nil
}

// Has implements Space.
func (s *Store) Has(ref Ref) bool {
	if !digest.Valid(ref.Digest) {
		return false
	}
	info, err := os.Stat(s.object(ref.Digest))
	if err == nil && info.Mode().IsRegular() && info.Size() == ref.Size {
		return true
	}
	if s.shared == nil {
		return false
	}
	size, err := s.shared.Size(objectKey(ref.Digest))
	return err == nil && size == ref.Size
}

func verify(path string, ref Ref) error {
	sum, size, err := digest.File(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is %w: %w", ref, ErrMissing, err)
	case err != nil:
		return fmt.Errorf("%s: %w", ref, err)
	case sum != ref.Digest:
		return fmt.Errorf("%s at %s: %w, the %d bytes found (of %d) have %s (file damaged or truncated?)",
			ref, path, ErrDamaged, size, ref.Size, digest.Short(sum))
	}
	return nil
}
