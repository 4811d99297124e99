package kernels_test

import (
	"fmt"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// A binary product: two rows of four signs times the signs of three rows of weights.
func Example() {
	var d kernels.Device = cpu.New(cpu.Options{})
	defer d.Close()
	floats := func(values ...float32) kernels.Floats {
		x, _ := d.NewFloats(len(values))
		d.Upload(x, values)
		return x
	}
	signs, _ := d.NewPlanes(3, 4, kernels.Sign())
	weights := floats(0.3, -2, 0.1, 5, -1, -1, 1, 1, 7, 8, 9, 0)
	l := kernels.Linear{In: 4, Out: 3, Weight: weights, Quantized: signs, Alpha: floats(1, 1, 0.5), Theta: floats(0, 0, 1)}
	d.Quantize(l) // + - + +, - - + + and + + + +

	x, _ := d.NewPlanes(2, 4, kernels.Sign())
	d.Normalize(kernels.Activation{Planes: x}, floats(1, 2, 3, 4, -1, 2, -3, 4),
		kernels.RMSNorm{Gain: floats(1, 1, 1, 1), Eps: 1e-5})
	u := floats(0, 0, 0, 0, 0, 0)
	d.LinearAdd(u, nil, kernels.Activation{Planes: x}, l) // alpha * (x · sign(weight)) - theta

	products := make([]float32, 6)
	if err := d.Download(products, u); err != nil { // the first failure of all calls
		fmt.Println(err)
	}
	fmt.Println(products[:3], products[3:])
	// Output: [2 0 1] [-2 0 -1]
}

// Four bits of a value are four planes of ±1; the product with signs stays a product of integers, times one unit.
func ExampleMidRise() {
	q := kernels.MidRise(4)
	for _, v := range []float64{-0.3, 0, 0.9, 7} {
		n := q.Integer(v)
		fmt.Printf("%g is kept as %d × %g = %g\n", v, n, q.Unit(), q.Unit()*float32(n))
	}
	// Output:
	// -0.3 is kept as -1 × 0.15625 = -0.15625
	// 0 is kept as 1 × 0.15625 = 0.15625
	// 0.9 is kept as 5 × 0.15625 = 0.78125
	// 7 is kept as 15 × 0.15625 = 2.34375
}

// What does not fit is refused, and the failure sticks until it is asked for.
func ExampleDevice_sync() {
	var d kernels.Device = cpu.New(cpu.Options{})
	x, _ := d.NewFloats(2)
	y, _ := d.NewFloats(3)
	d.Copy(x, y)
	d.Zero(x) // does nothing any more
	fmt.Println(d.Sync())
	// Output: cpu Copy: dst has 2 values, want 3
}
