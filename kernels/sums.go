package kernels

import "fmt"

// CheckSums refuses a product of rounded gradients and inputs over so many rows whose sums need not fit int32: devices would
// compute something else in silence.
func CheckSums(rows, gradBits, inputBits int) error {
	largest := (1<<(gradBits-1) - 1) * (1<<inputBits - 1) // of a term
	if most := (1<<31 - 1) / largest; rows > most {
		return fmt.Errorf("sums over %d rows of %d-bit gradients and %d-bit inputs may pass 32 bits: use a smaller micro-batch, of at most %d rows",
			rows, gradBits, inputBits, most)
	}
	return nil
}
