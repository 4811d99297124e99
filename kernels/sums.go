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
func CheckSums(rows, gradBits, inputBits int) error {
	largest := (1<<(gradBits-1) - 1) * (1<<inputBits - 1) // of a term
	if most := (1<<31 - 1) / largest; rows > most {
		return fmt.Errorf("sums over %d rows of %d-bit gradients and %d-bit inputs may pass 32 bits: use a smaller micro-batch, of at most %d rows",
			rows, gradBits, inputBits, most)
	}
	return nil
}
