//go:build cuda

package cuda

import "gorgonia.org/cu"

// aside is a second stream, for work that does not depend on what the first one does next: small kernels that wait for memory run
// under large ones. In a recorded graph it becomes a branch.
type aside struct {
	stream       cu.Stream
	begin, ended cu.Event
}

func (a *aside) open() (err error) {
	if a.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return err
	}
	if a.begin, err = cu.MakeEvent(cu.DisableTiming); err != nil {
		return err
	}
	a.ended, err = cu.MakeEvent(cu.DisableTiming)
	return err
}

// beside enqueues what f enqueues behind everything so far, but not before what follows: join makes what comes after it wait. One
// piece of work at a time. A profile wants kernels one by one and runs it in line.
func (d *Device) beside(f func() error) error {
	if d.profile != nil || d.rehearsing {
		return f()
	}
	if err := d.aside.begin.Record(d.stream); err != nil {
		return err
	}
	if err := d.aside.stream.Wait(d.aside.begin, 0); err != nil {
		return err
	}
	main := d.stream
	d.stream = d.aside.stream
	err := f()
	d.stream = main
	if e := d.aside.ended.Record(d.aside.stream); err == nil {
		err = e
	}
	return err
}

func (d *Device) join() error {
	if d.profile != nil || d.rehearsing {
		return nil
	}
	return d.stream.Wait(d.aside.ended, 0)
}
