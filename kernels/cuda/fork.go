//go:build cuda

package cuda

import "gorgonia.org/cu"

// branch is a second stream, for work that does not depend on what the device's own stream does next: small kernels
// that wait for memory run under large ones. In a recorded graph the stream becomes a branch.
type branch struct {
	stream       cu.Stream
	begin, ended cu.Event
}

func (b *branch) open() (err error) {
	if b.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return err
	}
	if b.begin, err = cu.MakeEvent(cu.DisableTiming); err != nil {
		return err
	}
	b.ended, err = cu.MakeEvent(cu.DisableTiming)
	return err
}

// fork runs f, which enqueues kernels, on the branch: they run after everything that is enqueued so far and beside what
// is enqueued next. join ends the branch; there is one at a time. A profile measures kernels one by one, so it has no
// branch.
func (d *Device) fork(f func() error) error {
	if d.profile != nil || d.dryRun {
		return f()
	}
	if err := d.branch.begin.Record(d.stream); err != nil {
		return err
	}
	if err := d.branch.stream.Wait(d.branch.begin, 0); err != nil {
		return err
	}
	main := d.stream
	d.stream = d.branch.stream
	err := f()
	d.stream = main
	if e := d.branch.ended.Record(d.branch.stream); err == nil {
		err = e
	}
	return err
}

// join makes what is enqueued next wait for the branch.
func (d *Device) join() error {
	if d.profile != nil || d.dryRun {
		return nil
	}
	return d.stream.Wait(d.branch.ended, 0)
}
