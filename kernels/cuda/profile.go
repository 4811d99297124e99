//go:build cuda

package cuda

import (
	"fmt"
	"time"

	"bitnet1/kernels/timing"

	"gorgonia.org/cu"
)

var _ timing.Profiler = (*Device)(nil)

// profile measures every operation with a pair of events. Graphs cannot hold events, so nothing is captured during a
// profile.
type profile struct {
	events     []cu.Event // begin and end of every operation; those beyond are free for later ones
	used       int
	operations []timing.Operation
}

func (p *profile) mark(stream cu.Stream) error {
	if p.used == len(p.events) {
		e, err := cu.MakeEvent(cu.DefaultEvent)
		if err != nil {
			return fmt.Errorf("event: %w", err)
		}
		p.events = append(p.events, e)
	}
	p.used++
	return p.events[p.used-1].Record(stream)
}

func (p *profile) begin(stream cu.Stream, operation timing.Operation) error {
	p.operations = append(p.operations, operation)
	return p.mark(stream)
}

func (p *profile) end(stream cu.Stream) error { return p.mark(stream) }

// StartProfile measures every kernel from now on. Graphs that were captured before are not measured, so call it before
// the first step.
func (d *Device) StartProfile() { d.profile = &profile{} }

// Profile returns the time of every kernel since StartProfile, or since the last call of Profile, longest first, and
// goes on measuring.
func (d *Device) Profile() ([]timing.Operation, error) {
	if err := d.Sync(); err != nil {
		return nil, err
	}
	release, err := d.current()
	if err != nil {
		return nil, err
	}
	defer release()
	list, err := d.profile.take()
	if err != nil {
		return nil, fmt.Errorf("CUDA device %d: %w", d.index, err)
	}
	return list, nil
}

// take returns the time of every kind of operation, longest first, and forgets them. All of them are done.
func (p *profile) take() ([]timing.Operation, error) {
	for i := range p.operations {
		o := &p.operations[i]
		ms, err := p.events[2*i].Elapsed(p.events[2*i+1])
		if err != nil {
			return nil, fmt.Errorf("time of %s: %w", o.Name, err)
		}
		o.Calls, o.Time = 1, max(0, time.Duration(ms*float64(time.Millisecond))) // events of two streams may pass each other
	}
	list := timing.Sum(p.operations)
	p.used, p.operations = 0, nil
	return list, nil
}

var _ timing.ExchangeProfiler = (*Communicator)(nil)

// StartProfile measures every exchange from now on, and in every Join how long the device has nothing else to do.
func (c *Communicator) StartProfile() { c.profile = &profile{} }

// Profile returns the time of every kind of exchange since StartProfile, or since the last call of Profile, longest
// first, and goes on measuring.
func (c *Communicator) Profile() ([]timing.Operation, error) {
	if err := c.device.Sync(); err != nil {
		return nil, err
	}
	var list []timing.Operation
	c.do("Profile", func() (err error) {
		list, err = c.profile.take()
		return err
	})
	return list, c.Err()
}

// marked measures what f enqueues on the stream of exchanges, from when the stream from has come so far to its end.
func (c *Communicator) marked(from cu.Stream, o timing.Operation, f func() error) error {
	if c.profile == nil {
		return f()
	}
	if err := c.profile.begin(from, o); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return c.profile.end(c.stream)
}
