package kernels

import (
	"fmt"
	"slices"
)

// Every device runs an operation's check before its own code, so that all devices refuse the same arguments with the
// same words. A check looks at shapes and types alone: what memory holds is the device's to see. Memory may be larger
// than what is needed, planes may not.

// CheckPlanes checks NewPlanes.
func CheckPlanes(rows, cols int, q Quantization) error {
	if err := q.Check(); err != nil {
		return fmt.Errorf("%d × %d planes: %w", rows, cols, err)
	}
	if q == Unquantized() {
		return fmt.Errorf("%d × %d planes of floats: want a quantization", rows, cols)
	}
	if rows < 0 || cols < 1 {
		return fmt.Errorf("%d × %d planes: want 0 rows or more, and 1 column or more", rows, cols)
	}
	return nil
}

// maxElements bounds one buffer, so that a wrong size is an error and not the end of the process.
const maxElements = 1 << 38

// CheckSize checks the number of elements of new memory; what names them.
func CheckSize(what string, n int) error {
	if n < 0 || n > maxElements {
		return fmt.Errorf("cannot allocate %d %s: at most %d are supported: compute less at once", n, what, maxElements)
	}
	return nil
}

// CheckUpload checks Upload of n values.
func CheckUpload(dst Floats, n int) error {
	var c checker
	c.gradients("dst", dst, n)
	return c.err
}

// CheckUploadInts checks UploadInts of n values.
func CheckUploadInts(dst Ints, n int) error {
	var c checker
	c.ints("dst", dst, n)
	return c.err
}

// CheckDownload checks Download of n values.
func CheckDownload(n int, src Floats) error {
	var c checker
	c.gradients("src", src, n)
	return c.err
}

// CheckDownloadInts checks DownloadInts of n values.
func CheckDownloadInts(n int, src Ints) error {
	var c checker
	c.ints("src", src, n)
	return c.err
}

// CheckDownloadPlanes checks DownloadPlanes to so many words.
func CheckDownloadPlanes(words int, src Planes) error {
	var c checker
	if src == nil {
		c.refuse("src is missing")
	} else if want := src.Rows() * src.Quantization().Planes() * ((src.Cols() + 63) / 64); words < want {
		c.refuse("dst has %d words, want %d", words, want)
	}
	return c.err
}

// CheckRead checks Reader.Read of n values.
func CheckRead(n int, src Floats) error {
	var c checker
	c.floats("src", src, n)
	return c.err
}

// CheckZero checks Zero.
func CheckZero(x Floats) error {
	var c checker
	c.gradients("x", x, 0)
	return c.err
}

// CheckCopy checks Copy.
func CheckCopy(dst, src Floats) error {
	var c checker
	if c.floats("src", src, 0); c.err == nil {
		c.floats("dst", dst, src.Len())
	}
	return c.err
}

// CheckAddSum checks AddSum and AddSumSquares.
func CheckAddSum(dst, x Floats) error {
	var c checker
	c.floats("dst", dst, 1)
	c.floats("x", x, 0)
	return c.err
}

// CheckZeroLongs checks ZeroLongs.
func CheckZeroLongs(x Longs) error {
	var c checker
	c.longs("x", x, 0)
	return c.err
}

// CheckFixed checks AddFixed, SetFixed and ReadFixed.
func CheckFixed(sums FixedSums, x Floats) error {
	var c checker
	if c.floats("x", x, 0); c.err == nil {
		c.longs("the sums", sums.Sums, x.Len())
	}
	c.longs("the overflow", sums.Overflow, 1)
	if sums.Fraction < 0 || sums.Fraction > fixedTermBits {
		c.refuse("sums in units of 2^-%d: want 0 to %d", sums.Fraction, fixedTermBits)
	}
	return c.err
}

// CheckQuantize checks Quantize.
func CheckQuantize(l Linear) error {
	var c checker
	c.weights(l)
	c.floats("the linear's weights", l.Weight, l.In*l.Out)
	return c.err
}

// CheckEmbed checks Embed.
func CheckEmbed(x Floats, tokens Ints, codebook Linear) error {
	var c checker
	c.weights(codebook)
	if c.ints("tokens", tokens, 0); c.err == nil {
		c.floats("x", x, tokens.Len()*codebook.In)
	}
	return c.err
}

// OutsideVocabulary is the failure of Embed at a token that the codebook lacks.
func OutsideVocabulary(row int) error {
	return fmt.Errorf("the token of row %d is outside the vocabulary", row)
}

// CheckEmbedBackward checks EmbedBackward.
func CheckEmbedBackward(dWeight, dx Floats, tokens Ints, width int) error {
	var c checker
	if width < 1 {
		c.refuse("rows of %d values, want 1 or more", width)
	}
	c.floats("dWeight", dWeight, width)
	if c.ints("tokens", tokens, 0); c.err == nil {
		c.gradients("dx", dx, tokens.Len()*width)
	}
	return c.err
}

// CheckNormalize checks Normalize.
func CheckNormalize(out Activation, x Floats, n RMSNorm) error {
	var c checker
	rows, width := c.normalized(x, n)
	if c.err != nil {
		return c.err
	}
	if got := c.activation("out", out, width); got < rows || out.Planes != nil && got != rows {
		c.refuse("out has %d rows, want %d", got, rows)
	}
	return c.err
}

// CheckNormalizeBackward checks NormalizeBackward.
func CheckNormalizeBackward(dx, dGain, dOut, x Floats, n RMSNorm, q Quantization) error {
	var c checker
	rows, width := c.normalized(x, n)
	c.gradients("dx", dx, rows*width)
	c.gradients("dOut", dOut, rows*width)
	c.alike("dx", "dOut", dx, dOut)
	c.floats("dGain", dGain, width)
	if err := q.Check(); err != nil {
		c.refuse("%w", err)
	}
	return c.err
}

// CheckLinearQuantize checks LinearQuantize.
func CheckLinearQuantize(out []Planes, derivative Derivative, x Activation, l Linear, shift KShift) error {
	var c checker
	rows := c.product(x, l)
	channels := 0
	for i, p := range out {
		name := fmt.Sprintf("out[%d]", i)
		if p == nil {
			c.refuse("%s is missing", name)
			return c.err
		}
		q := p.Quantization()
		if q != MidRise(q.Bits()) && q != Unsigned(q.Bits()) {
			c.refuse("%s is of %v: want signs, mid-rise levels or unsigned levels", name, q)
		}
		if squared := !q.PlusMinus(); squared && derivative.Mask != nil || !squared && derivative.Factors != nil {
			c.refuse("%s is of %v: its derivative is a mask where bits mean ±1, and otherwise factors", name, q)
		}
		c.planes(name, p, rows, p.Cols(), q)
		channels += p.Cols()
	}
	if channels != l.Out {
		c.refuse("out has %d channels in all, want %d", channels, l.Out)
	}
	c.derivative(derivative, rows, l.Out)
	c.shift(shift, rows, l.Out)
	return c.err
}

// CheckLinearAdd checks LinearAdd.
func CheckLinearAdd(out, residual Floats, x Activation, l Linear) error {
	var c checker
	rows := c.product(x, l)
	c.floats("out", out, rows*l.Out)
	c.optional("residual", residual, rows*l.Out)
	return c.err
}

// CheckLinearBackward checks LinearBackward.
func CheckLinearBackward(dx Floats, dl LinearGradient, dy Floats, derivative Derivative, x Activation, l Linear,
	shift KShift, gradBits GradBits) error {
	var c checker
	rows := c.product(x, l)
	c.gradients("dx", dx, rows*l.In)
	c.gradients("dy", dy, rows*l.Out)
	c.derivative(derivative, rows, l.Out)
	c.shift(shift, rows, l.Out)
	c.parameters(dl, x, l, rows, gradBits)
	return c.err
}

// CheckAttend checks Attend.
func CheckAttend(out Planes, pointers Ints, queries, keys, values Planes, a Attention) error {
	var c checker
	rows, width := c.attention(pointers, queries, keys, values, a)
	if c.levels("out", out, rows, width); c.err == nil && out.Quantization().Bits() > values.Quantization().Bits() {
		c.refuse("out has %v and values %v: want no more bits than the values', or a read of equal values lies "+
			"half way between two levels", out.Quantization(), values.Quantization())
	}
	return c.err
}

// CheckAttendBackward checks AttendBackward.
func CheckAttendBackward(dqkv, dOut Floats, queries, keys, values Planes, pointers Ints, a Attention) error {
	var c checker
	rows, width := c.attention(pointers, queries, keys, values, a)
	c.gradients("dqkv", dqkv, 3*rows*width)
	c.gradients("dOut", dOut, rows*width)
	c.alike("dqkv", "dOut", dqkv, dOut)
	return c.err
}

// CheckCrossEntropy checks CrossEntropy.
func CheckCrossEntropy(losses Floats, x Activation, lmHead Linear, targets Ints) error {
	var c checker
	rows := c.product(x, lmHead)
	c.floats("losses", losses, rows)
	c.ints("targets", targets, rows)
	return c.err
}

// CheckCrossEntropyBackward checks CrossEntropyBackward.
func CheckCrossEntropyBackward(losses, dx Floats, dl LinearGradient, x Activation, lmHead Linear, targets Ints,
	gradBits GradBits) error {
	c := checker{CheckCrossEntropy(losses, x, lmHead, targets)}
	if c.err == nil {
		rows := c.activation("x", x, lmHead.In)
		c.gradients("dx", dx, rows*lmHead.In)
		c.parameters(dl, x, lmHead, rows, gradBits)
	}
	return c.err
}

// CheckAdamW checks AdamW.
func CheckAdamW(a Adam) error {
	var c checker
	if c.floats("the parameters", a.Param, 0); c.err != nil {
		return c.err
	}
	n := a.Param.Len()
	c.floats("the gradient", a.Grad, n)
	c.floats("M", a.M, n)
	c.floats("V", a.V, n)
	c.optional("the master copy", a.Master, n)
	c.optional("the squared norm", a.SquaredNorm, 1)
	return c.err
}

// CheckMuon checks Muon.
func CheckMuon(u Muon) error {
	if u.Rows < 1 || u.Cols < 1 || u.Steps < 1 {
		return fmt.Errorf("matrices of %d × %d, %d steps of the iteration: want at least 1 of each", u.Rows, u.Cols, u.Steps)
	}
	for _, at := range slices.Concat(u.At, u.MomentumAt) {
		if at < 0 {
			return fmt.Errorf("a matrix begins at %d: want 0 or more", at)
		}
	}
	var c checker
	n := u.Extent()
	c.floats("the parameters", u.Param, n)
	c.floats("the gradient", u.Grad, n)
	c.floats("the momentum", u.Momentum, n)
	c.optional("the squared norm", u.SquaredNorm, 1)
	return c.err
}

// CheckGradBits refuses numbers of bits that no device rounds gradients to.
func CheckGradBits(gradBits GradBits) error {
	for _, bits := range []int{gradBits.Input, gradBits.Weight} {
		if bits != FloatBits && (bits < 2 || bits > 8) {
			return fmt.Errorf("gradients of %d bits: want 2 to 8, or %d for floats", bits, FloatBits)
		}
	}
	if (gradBits.Input == FloatBits) != (gradBits.Weight == FloatBits) {
		return fmt.Errorf("gradients of %d bits for inputs and of %d for weights: want %d, floats, for both or neither",
			gradBits.Input, gradBits.Weight, FloatBits)
	}
	return nil
}

// CheckSums refuses to multiply rounded gradients with inputs, or with weights, over so many terms that the sums may
// not fit int32. terms names them: "rows" or "channels".
func CheckSums(n int, terms string, gradBits int, other Quantization) error {
	largest := (1<<(gradBits-1) - 1) * other.Largest() // of a term
	if most := (1<<31 - 1) / largest; n > most {
		return fmt.Errorf("sums over %d %s of %d-bit gradients and %v may pass 32 bits: want at most %d %s",
			n, terms, gradBits, other, most, terms)
	}
	return nil
}
