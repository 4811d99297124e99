package cpu

import (
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/devicetest"
)

func TestDevice(t *testing.T) {
	for _, workers := range []int{1, 3} {
		devicetest.Run(t, func(testing.TB) kernels.Device { return New(Options{Workers: workers}) })
	}
}
