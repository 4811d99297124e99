//go:build cuda

package cuda

import (
	"fmt"
	"strings"
	"time"

	"bitnet1/kernels/timing"

	"gorgonia.org/cu"
)

// categories of kernels, by how their names begin; the first that fits counts.
var categories = []struct {
	prefix   string
	category timing.Category
	float    bool
}{
	{"gemm_wgmma_bytes", timing.ByteProducts, false},
	{"gemm_", timing.BinaryProducts, false},
	{"pack_signs", timing.Packing, false}, {"transpose_bits", timing.Packing, false}, {"spread_bytes", timing.Packing, false},
	{"channel_thresholds", timing.Packing, false},
	{"grad_copy", timing.Elementwise, true}, {"grad_", timing.Rounding, false}, {"finish_weights", timing.Rounding, false},
	{"add_columns", timing.Rounding, false},
	{"survivors", timing.Attention, false}, {"attend_", timing.Attention, true},
	{"survivor_lists", timing.Attention, false}, {"survivor_", timing.Attention, true}, {"dense_", timing.Attention, true},
	{"losses_", timing.Loss, true},
	{"adamw", timing.Optimizer, true}, {"sum_blocks", timing.Optimizer, true}, {"add_total", timing.Optimizer, true},
	{"normalize", timing.Elementwise, true}, {"embed", timing.Elementwise, true}, {"chain_", timing.Elementwise, false},
	{"emit_", timing.Elementwise, true}, {"expand", timing.Elementwise, true}, {"scale_rows", timing.Elementwise, true},
	{"blend", timing.Elementwise, true}, {"float_product", timing.Elementwise, true},
	{"clear", timing.Copies, false}, {"copy", timing.Copies, false}, {"set_scalars", timing.Copies, false},
}

// operation is a kernel's, with nothing measured; its category is empty for a kernel that nobody has put into one.
func operation(kernel string) timing.Operation {
	for _, c := range categories {
		if strings.HasPrefix(kernel, c.prefix) {
			return timing.Operation{Name: kernel, Category: c.category, Float: c.float}
		}
	}
	return timing.Operation{Name: kernel}
}

var _ timing.Profiler = (*Device)(nil)

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
	for i, kernel := range p.kernels {
		ms, err := p.events[2*i].Elapsed(p.events[2*i+1])
		if err != nil {
			return nil, fmt.Errorf("CUDA device %d: time of %s: %w", d.index, kernel, err)
		}
		k := sums[kernel]
		if k == nil {
			o := operation(kernel)
			k, sums[kernel] = &o, &o
		}
		k.Calls++
		k.Time += time.Duration(ms * float64(time.Millisecond))
	}
	p.used, p.kernels = 0, nil
	list := make([]timing.Operation, 0, len(sums))
	for _, k := range sums {
		list = append(list, *k)
	}
	timing.Sort(list)
	return list, nil
}
