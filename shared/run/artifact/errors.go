package artifact

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"bitnet1/shared/run/bucket"
)

// Errors of this package, for whoever knows what their user can do about them. Their texts are parts of sentences.
var (
	ErrDirectory = errors.New("cannot be used as a data directory")
	ErrFull      = errors.New("the disk is full")
	ErrReadOnly  = errors.New("this program may not write there")
	ErrMissing   = errors.New("not in the store")
	ErrDamaged   = errors.New("digest differs")
	ErrOther     = errors.New("is there with another content")
	ErrTaken     = errors.New("is an input, or the output of another one")
)

// explained says in words what an error of the file system means.
func explained(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w (%w)", err, ErrFull)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (%w)", err, ErrReadOnly)
	default:
		return err
	}
}

// Unwritable reports whether err is the disk's or the bucket's and not the work's: full, no longer to be written, out
// of reach.
func Unwritable(err error) bool {
	for _, sign := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, bucket.ErrUnusable} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}
