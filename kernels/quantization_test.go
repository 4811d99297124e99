package kernels

import (
	"math"
	"strings"
	"testing"
)

// The values are those of the PyTorch reference in float64.
func TestLevels(t *testing.T) {
	at := []float64{-9, -2.5, -1.26, -1.25, -0.7, -0.15625, -1e-9, 0, 0.15625, 0.3125, 1, 1.25, 2, 2.34375, 3.3, 4, 9}
	for _, c := range []struct {
		q    Quantization
		want []float64
	}{
		{Sign(), []float64{-1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
		{MidRise(2), []float64{-1.875, -1.875, -1.875, -1.875, -0.625, -0.625, -0.625, 0.625, 0.625, 0.625, 0.625,
			0.625, 1.875, 1.875, 1.875, 1.875, 1.875}},
		{MidRise(4), []float64{-2.34375, -2.34375, -1.40625, -1.09375, -0.78125, -0.15625, -0.15625, 0.15625, 0.15625,
			0.15625, 1.09375, 1.40625,
			2.03125, 2.34375, 2.34375, 2.34375, 2.34375}},
		{Normal(2), []float64{-1.49355, -1.49355, -1.49355, -1.49355, -0.49785, -0.49785, -0.49785, 0.49785, 0.49785,
			0.49785, 1.49355, 1.49355,
			1.49355, 1.49355, 1.49355, 1.49355, 1.49355}},
		{Normal(8), []float64{-3.927, -2.5102, -1.2474, -1.2474, -0.693, -0.1694, -0.0154, 0.0154, 0.1694, 0.3234,
			1.001, 1.2474, 1.9866, 2.3562,
			3.311, 3.927, 3.927}},
		{Unsigned(3), []float64{0, 0, 0, 0, 0, 0, 0, 0, 0, 4. / 7, 8. / 7, 8. / 7, 16. / 7, 16. / 7, 24. / 7, 4, 4}},
		{Unsigned(8), []float64{0, 0, 0, 0, 0, 0, 0, 0, 40. / 255, 80. / 255, 256. / 255, 320. / 255, 512. / 255,
			596. / 255, 840. / 255, 4, 4}},
	} {
		for i, v := range at {
			n := c.q.Integer(v)
			if got := float64(c.q.Unit()) * float64(n); math.Abs(got-c.want[i]) > 1e-6 {
				t.Errorf("%v: %g becomes %g, want %g", c.q, v, got, c.want[i])
			}
			if n < -c.q.Largest() || n > c.q.Largest() || c.q.PlusMinus() && n&1 == 0 || !c.q.PlusMinus() && n < 0 {
				t.Errorf("%v: %d planes cannot hold %d", c.q, c.q.Planes(), n)
			}
		}
		lowest := c.q.Integer(math.Inf(-1))
		if got := c.q.Integer(math.NaN()); got != lowest {
			t.Errorf("%v: NaN has the integer %d, want the lowest, %d", c.q, got, lowest)
		}
	}
}

// What a number of bits means, and what it does not.
func TestQuantizations(t *testing.T) {
	for _, c := range []struct {
		q      Quantization
		name   string
		planes int
		unit   float32
		step   float64
		limit  float64
	}{
		{MidRise(1), "signs", 1, 1, 2, 1}, {Unsigned(1), "signs", 1, 1, 2, 1}, {Normal(1), "signs", 1, 1, 2, 1},
		{MidRise(2), "2-bit mid-rise levels", 2, 0.625, 1.25, 2.5},
		{MidRise(8), "8-bit mid-rise levels", 8, 2.5 / 256, 2.5 / 128, 2.5},
		{Unsigned(4), "4-bit unsigned levels", 4, 4. / 15, 4. / 15, 4},
		{Normal(4), "4-bit levels of a normal", 4, 0.1676, 0.3352, math.Inf(1)},
		{MidRise(FloatBits), "floats", 0, 1, 1, math.Inf(1)},
	} {
		if c.q.Check() != nil || c.q.String() != c.name || c.q.Planes() != c.planes || c.q.Unit() != c.unit ||
			c.q.Step() != c.step || c.q.PassLimit() != c.limit {
			t.Errorf("%v (%v): %d planes of unit %g, step %g, limit %g; want %+v", c.q, c.q.Check(), c.q.Planes(),
				c.q.Unit(), c.q.Step(), c.q.PassLimit(), c)
		}
	}
	for want, list := range map[string][]Quantization{
		"or 16 for floats":                            {MidRise(0), MidRise(9), MidRise(-1), MidRise(15)},
		"want 1 for signs, or 2 to 8 for levels":      {Normal(FloatBits), Unsigned(FloatBits), Unsigned(9), Normal(0)},
		"0 bits: want 1 for signs, or 2 to 8 for lev": {{}},
	} {
		for _, q := range list {
			if err := q.Check(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", q, err, want)
			}
		}
	}
}
