package stage

import (
	"fmt"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/record"
)

// mend forgets what is recorded of a job and cannot be its answer: all of it where the user wants the job done anew or
// where a finished job's artifact is no longer there, otherwise what comes after the last sound output.
func (p *performer[P, E]) mend(t task[P, E], r *record.Record) error {
	if t.force {
		return r.Reset()
	}
	sound, cause := p.soundOutputs(r)
	if sound == len(r.Outputs) {
		return nil
	}
	if r.Complete() || sound == 0 {
		p.log.Warn("an output is gone or damaged, and the job is done again", "run", t.run, "error", cause)
		return r.Reset()
	}
	p.log.Warn(fmt.Sprintf("an output is gone or damaged: the job goes back to the %s before", r.Outputs[sound-1].Kind),
		"run", t.run, "error", cause)
	return r.Retract(sound)
}

// soundOutputs counts the outputs up to the first whose artifacts are not there. The last output is what an unfinished
// job goes on from: its bytes are checked.
func (p *performer[P, E]) soundOutputs(r *record.Record) (n int, cause error) {
	for i := range r.Outputs {
		for _, ref := range r.Made(i) {
			if !p.has(r, ref) {
				cause = fmt.Errorf("%s is gone", ref)
			}
		}
		if cause != nil {
			break
		}
		n++
	}
	for ; n > 0 && !r.Complete(); n-- {
		var damage error
		for _, ref := range r.Made(n - 1) {
			if _, err := p.space.Path(ref); err != nil {
				damage = err
			}
		}
		if damage == nil {
			break
		}
		cause = damage
	}
	return n, cause
}

// has reports whether an artifact of a job is there. In a folder, a file of a finished job may have been changed since.
func (p *performer[P, E]) has(r *record.Record, ref artifact.Ref) bool {
	if p.folder != nil && r.Complete() {
		return p.folder.Holds(ref)
	}
	return p.space.Has(ref)
}
