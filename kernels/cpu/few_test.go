package cpu

import (
	"slices"
	"testing"

	"bitnet1/kernels"
)

// Few rows, whose channels the workers divide, give what they give among many rows. Parts of the output may end within
// words.
func TestFewRows(t *testing.T) {
	const many, in = 40, 500
	d, r := New(Options{Workers: 3}), random(5)
	for _, widths := range [][]int{{3000}, {1000, 1000, 1000}, {960, 40, 2000}, {64, 2936}} {
		for bits, q := range map[int]kernels.Quantization{
			1: kernels.Sign(), 4: kernels.MidRise(4), 3: kernels.Unsigned(3),
		} {
			x, _ := randomPlanes(t, d, r, many, in, bits)
			w, _ := randomPlanes(t, d, r, 3000, in, 1)
			l := kernels.Linear{In: in, Out: 3000, Quantized: w, Alpha: normals(r, 3000), Theta: normals(r, 3000)}
			run := func(rows int) (words [][]uint64) {
				var out []kernels.Planes
				for _, cols := range widths {
					p, _ := d.NewPlanes(rows, cols, q)
					out = append(out, p)
				}
				mask, _ := d.NewPlanes(rows, 3000, kernels.Sign())
				derivative := kernels.Derivative{Mask: mask}
				if !q.PlusMinus() {
					derivative = kernels.Derivative{}
				}
				d.LinearQuantize(out, derivative, kernels.Activation{Planes: x.Slice(0, rows)}, l, kernels.KShift{})
				if err := d.Sync(); err != nil {
					t.Fatal(err)
				}
				for _, p := range append(out, mask) {
					words = append(words, p.Slice(0, 5).(*planes).words)
				}
				return words
			}
			if got, want := run(5), run(many); !slices.EqualFunc(got, want, slices.Equal[[]uint64]) {
				t.Errorf("parts of %d channels, %v: five rows give other levels or masks", widths, q)
			}
			each := make([]kernels.Planes, 2)
			for i := range each {
				each[i], _ = d.NewPlanes(5, 3000, q)
			}
			d.LinearQuantizeEach(each, kernels.Activation{Planes: x.Slice(0, 5)}, []kernels.Linear{l, l})
			for _, p := range each {
				if len(widths) == 1 && !slices.Equal(p.(*planes).words, run(many)[0]) {
					t.Errorf("%v: two linears together give other levels", q)
				}
			}
		}
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}
