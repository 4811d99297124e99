package artifact

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/vfs"
)

// objectKey is where a bucket has an artifact.
func objectKey(digest string) string { return path.Join(objectsName, digest[:2], digest) }

// fetch copies an artifact from the bucket into the data directory. Nobody sees the copy before its digest is checked.
func (s *Store) fetch(ref Ref) error {
	if err := vfs.MkdirAll(s.fs, s.temporary()); err != nil {
		return explained(err)
	}
	f, err := createLocked(s.fs, s.temporary(), temporaryPrefix, unix.LOCK_EX)
	if err != nil {
		return fmt.Errorf("fetching %s: %w", ref, explained(err))
	}
	defer f.Close()
	defer func() { _ = s.fs.Remove(f.Name()) }()
	switch err := s.shared.Download(objectKey(ref.Digest), f); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is %w, nor in the bucket: %w", ref, ErrMissing, err)
	case errors.Is(err, bucket.ErrDamaged):
		return fmt.Errorf("fetching %s: %w in the bucket: %w", ref, ErrDamaged, err)
	case err != nil:
		return fmt.Errorf("fetching %s: %w", ref, explained(err))
	}
	sum, size, err := digest.File(f.Name())
	if err == nil && sum != ref.Digest {
		err = fmt.Errorf("%w in the bucket, the %d bytes found (of %d) have %s", ErrDamaged, size, ref.Size,
			digest.Short(sum))
	}
	if err == nil {
		err = errors.Join(f.Chmod(0o444), f.Sync())
	}
	if err == nil {
		err = s.keep(f.Name(), ref)
	}
	if err != nil {
		return fmt.Errorf("fetching %s: %w", ref, explained(err))
	}
	return nil
}
