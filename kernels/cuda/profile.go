//go:build cuda

package cuda

import (
	"fmt"
	"sort"
	"time"

	"gorgonia.org/cu"
)

// KernelTime is what one kernel took in a profile.
type KernelTime struct {
	Kernel string
	Calls  int
	Time   time.Duration // on the device
}

// profile measures every kernel with a pair of events. Events cannot be recorded in graphs, so nothing is captured meanwhile.
type profile struct {
	events  []cu.Event // begin and end of every call; those beyond are free for later ones
	used    int
	kernels []string
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

func (p *profile) begin(stream cu.Stream, kernel string) error {
	p.kernels = append(p.kernels, kernel)
	return p.mark(stream)
}

func (p *profile) end(stream cu.Stream) error { return p.mark(stream) }

// StartProfile measures every kernel from here on; programs captured before go unmeasured, so call it before the first step.
func (d *Device) StartProfile() { d.profile = &profile{} }

// Profile returns the time of every kernel since StartProfile, or since the last call of Profile, longest first, and goes on measuring.
func (d *Device) Profile() ([]KernelTime, error) {
	if err := d.Sync(); err != nil {
		return nil, err
	}
	release, err := d.current()
	if err != nil {
		return nil, err
	}
	defer release()
	p, sums := d.profile, map[string]*KernelTime{}
	for i, kernel := range p.kernels {
		ms, err := p.events[2*i].Elapsed(p.events[2*i+1])
		if err != nil {
			return nil, fmt.Errorf("CUDA device %d: time of %s: %w", d.index, kernel, err)
		}
		k := sums[kernel]
		if k == nil {
			k = &KernelTime{Kernel: kernel}
			sums[kernel] = k
		}
		k.Calls++
		k.Time += time.Duration(ms * float64(time.Millisecond))
	}
	p.used, p.kernels = 0, nil
	list := make([]KernelTime, 0, len(sums))
	for _, k := range sums {
		list = append(list, *k)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Time > list[j].Time })
	return list, nil
}
