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
	p, sums := d.profile, map[string]*timing.Operation{}
	for i, o := range p.operations {
		ms, err := p.events[2*i].Elapsed(p.events[2*i+1])
		if err != nil {
			return nil, fmt.Errorf("CUDA device %d: time of %s: %w", d.index, o.Name, err)
		}
		k := sums[o.Name]
		if k == nil {
			k, sums[o.Name] = &o, &o
		}
		k.Calls++
		k.Time += time.Duration(ms * float64(time.Millisecond))
	}
	p.used, p.operations = 0, nil
	list := make([]timing.Operation, 0, len(sums))
	for _, k := range sums {
		list = append(list, *k)
	}
	timing.Sort(list)
	return list, nil
}
