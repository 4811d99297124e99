package kernels

import "fmt"

// CheckGradBits refuses numbers of bits that no device rounds gradients to.
func CheckGradBits(gradBits int) error {
	if gradBits != FloatBits && (gradBits < 2 || gradBits > 8) {
		return fmt.Errorf("gradients of %d bits: want 2 to 8, or %d for floats", gradBits, FloatBits)
	}
	return nil
}

// CheckSums refuses to multiply rounded gradients with inputs over so many rows that the sums may not fit int32.
func CheckSums(rows, gradBits int, input Quantization) error {
	largest := (1<<(gradBits-1) - 1) * input.Largest() // of a term
	if most := (1<<31 - 1) / largest; rows > most {
		return fmt.Errorf("sums over %d rows of %d-bit gradients and inputs of %v may pass 32 bits: use a smaller micro-batch, of at most %d rows",
			rows, gradBits, input, most)
	}
	return nil
}

// CheckPlanes refuses planes that no device has.
func CheckPlanes(rows, cols int, q Quantization) error {
	if err := q.Check(); err != nil {
		return fmt.Errorf("%d × %d planes: %w", rows, cols, err)
	}
	if q != MidRise(q.Bits()) || q == Unquantized() {
		return fmt.Errorf("%d × %d planes of %v: devices have planes of signs and of mid-rise levels", rows, cols, q)
	}
	if rows < 0 || cols < 1 {
		return fmt.Errorf("%d × %d planes: want 0 rows or more, and 1 column or more", rows, cols)
	}
	return nil
}
