package stage

import "errors"

// anew marks an error that doing the job from its beginning mends.
type anew struct{ error }

func (a anew) Unwrap() error { return a.error }

// Anew marks err as one of damaged files in Scratch that nothing but the job itself can make again: all that an
// unfinished job has is forgotten, and the job is done from its beginning.
func Anew(err error) error {
	if err == nil {
		return nil
	}
	return anew{err}
}

func isAnew(err error) bool { return errors.As(err, new(anew)) }
