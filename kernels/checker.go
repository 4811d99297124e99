package kernels

import "fmt"

// checker keeps the first thing that is wrong with an operation's arguments.
type checker struct{ err error }

func (c *checker) refuse(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// gradients wants at least n values, of either type.
func (c *checker) gradients(name string, x Floats, n int) {
	if x == nil {
		c.refuse("%s is missing", name)
	} else if x.Len() < n {
		c.refuse("%s has %d values, want %d", name, x.Len(), n)
	}
}

// floats wants at least n values of float32.
func (c *checker) floats(name string, x Floats, n int) {
	if c.gradients(name, x, n); x != nil && x.BFloat16() {
		c.refuse("%s is bfloat16, want float32", name)
	}
}

// optional is floats, unless x is nil.
func (c *checker) optional(name string, x Floats, n int) {
	if x != nil {
		c.floats(name, x, n)
	}
}

// alike wants two gradients of one type.
func (c *checker) alike(x, y string, a, b Floats) {
	if a != nil && b != nil && a.BFloat16() != b.BFloat16() {
		c.refuse("one of %s and %s is bfloat16, the other float32: want one type", x, y)
	}
}

func (c *checker) ints(name string, x Ints, n int) {
	if x == nil {
		c.refuse("%s is missing", name)
	} else if x.Len() < n {
		c.refuse("%s has %d values, want %d", name, x.Len(), n)
	}
}

func (c *checker) longs(name string, x Longs, n int) {
	if x == nil {
		c.refuse("%s is missing", name)
	} else if x.Len() < n {
		c.refuse("%s has %d values, want %d", name, x.Len(), n)
	}
}

func (c *checker) planes(name string, p Planes, rows, cols int, q Quantization) {
	if p == nil {
		c.refuse("%s is missing", name)
	} else if p.Rows() != rows || p.Cols() != cols || p.Quantization() != q {
		c.refuse("%s is %d × %d %v, want %d × %d %v", name, p.Rows(), p.Cols(), p.Quantization(), rows, cols, q)
	}
}

// levels wants planes of signs or of mid-rise levels.
func (c *checker) levels(name string, p Planes, rows, cols int) {
	q := Sign()
	if p != nil {
		q = p.Quantization()
	}
	if q != MidRise(q.Bits()) {
		c.refuse("%s is of %v: want signs or mid-rise levels", name, q)
	}
	c.planes(name, p, rows, cols, q)
}

// derivative wants one of a mask and factors, or neither.
func (c *checker) derivative(d Derivative, rows, cols int) {
	if d.Mask != nil && d.Factors != nil {
		c.refuse("a derivative is a mask or factors, not both")
	}
	if d.Mask != nil {
		c.planes("mask", d.Mask, rows, cols, Sign())
	}
	if d.Factors != nil {
		c.gradients("factors", d.Factors, rows*cols)
	}
}

// activation wants one of planes and floats, rows of the given width, and returns how many rows there are.
func (c *checker) activation(name string, x Activation, width int) (rows int) {
	switch {
	case width < 1:
		c.refuse("%s has rows of %d values, want 1 or more", name, width)
	case (x.Planes == nil) == (x.Floats == nil):
		c.refuse("%s must be planes or floats, and one of them alone", name)
	case x.Planes != nil && x.Planes.Cols() != width:
		c.refuse("%s has rows of %d values, want %d", name, x.Planes.Cols(), width)
	case x.Planes != nil:
		return x.Planes.Rows()
	case x.Floats.Len()%width != 0:
		c.refuse("%s has %d values: they are no whole rows of %d", name, x.Floats.Len(), width)
	default:
		c.floats(name, x.Floats, 0)
		return x.Floats.Len() / width
	}
	return 0
}

// weights wants what products read of a linear's weights.
func (c *checker) weights(l Linear) {
	if l.In < 1 || l.Out < 0 {
		c.refuse("a linear of %d to %d channels", l.In, l.Out)
		return
	}
	q := Sign()
	if l.Quantized != nil {
		q = l.Quantized.Quantization()
	}
	if q != Normal(q.Bits()) {
		c.refuse("the linear's weights are of %v: want signs or levels of a normal", q)
	}
	c.planes("the quantized weights", l.Quantized, l.Out, l.In, q)
	c.optional("the linear's mixed weights", l.Mixed, l.In*l.Out)
}

// product wants a linear and what it reads, and returns the number of rows.
func (c *checker) product(x Activation, l Linear) (rows int) {
	c.weights(l)
	c.floats("alpha", l.Alpha, l.Out)
	c.floats("theta", l.Theta, l.Out)
	rows = c.activation("x", x, l.In)
	if c.err == nil && x.Planes != nil {
		in, w := x.Planes.Quantization(), l.Quantized.Quantization()
		if most := (1<<31 - 1) / (in.Largest() * w.Largest()); l.In > most {
			c.refuse("sums over %d channels of %v and %v may pass 32 bits: want at most %d channels", l.In, in, w, most)
		}
	}
	return rows
}

func (c *checker) shift(s KShift, rows, out int) {
	if s.To <= s.From {
		return
	}
	if s.From < 0 || s.To > out || s.Offset < 0 {
		c.refuse("K-shift of channels %d to %d of %d by %d tokens", s.From, s.To, out, s.Offset)
	}
	if s.Seq < 1 || rows%s.Seq != 0 {
		c.refuse("%d rows are no whole sequences of %d tokens", rows, s.Seq)
	}
	if s.Starts != nil {
		c.ints("starts", s.Starts, rows)
	}
}

// parameters wants the gradients of l's parameters, for rows rows of x and gradients of so many bits.
func (c *checker) parameters(dl LinearGradient, x Activation, l Linear, rows int, gradBits GradBits) {
	if (dl.Weight == nil) != (dl.Alpha == nil) {
		c.refuse("gradients of weights and alpha are wanted together, or neither")
	}
	c.optional("the gradient of weights", dl.Weight, l.In*l.Out)
	c.optional("the gradient of alpha", dl.Alpha, l.Out)
	c.optional("the gradient of theta", dl.Theta, l.Out)
	if err := CheckGradBits(gradBits); err != nil {
		c.refuse("%w", err)
		return
	}
	if !gradBits.Rounded() || c.err != nil {
		return
	}
	if err := CheckSums(l.Out, "channels", gradBits.Input, l.Quantized.Quantization()); err != nil {
		c.refuse("%w", err)
	}
	if dl.Weight == nil || x.Planes == nil {
		return
	}
	if err := CheckSums(rows, "rows", gradBits.Weight, x.Planes.Quantization()); err != nil {
		c.refuse("%w: use a smaller micro-batch", err)
	}
}

// attention wants what both passes of an attention read need.
func (c *checker) attention(pointers Ints, queries, keys, values Planes, a Attention) (rows, width int) {
	rule := a.Kind.Rule()
	if rule.Name == "" {
		c.refuse("attention of %v: want one of %v", a.Kind, AttentionKinds())
	}
	if a.Batch < 1 || a.Seq < 1 || a.Heads < 1 || a.HeadDim < 1 {
		c.refuse("attention of %d × %d tokens with %d heads × %d channels, want 1 or more of each", a.Batch, a.Seq,
			a.Heads, a.HeadDim)
		return 0, 0
	}
	if a.Survivors < 1 || a.Survivors > rule.MaxSurvivors {
		c.refuse("%d survivors, want 1 to %d with %v attention", a.Survivors, rule.MaxSurvivors, a.Kind)
	}
	rows, width = a.Batch*a.Seq, a.Heads*a.HeadDim
	c.levels("queries", queries, rows, width)
	c.planes("keys", keys, rows, width, Sign())
	c.levels("values", values, rows, width)
	c.ints("pointers", pointers, rows*a.Heads*a.Survivors)
	if rule.Noise {
		c.optional("noise", a.Noise, rows*a.Heads*a.Seq)
	}
	if a.Starts != nil {
		c.ints("starts", a.Starts, rows)
	}
	return rows, width
}

// normalized wants x in rows as long as the gain, and returns their number and length.
func (c *checker) normalized(x Floats, n RMSNorm) (rows, width int) {
	c.floats("gain", n.Gain, 1)
	if c.floats("x", x, 0); c.err != nil {
		return 0, 0
	}
	if width = n.Gain.Len(); x.Len()%width != 0 {
		c.refuse("x has %d values: they are no whole rows of %d", x.Len(), width)
	}
	if r := n.Rotation; r < 0 || r&(r-1) != 0 || r > 0 && width%r != 0 {
		c.refuse("a rotation of blocks of %d in rows of %d values: want 0, or a power of two that divides %d",
			r, width, width)
	}
	return x.Len() / width, width
}
