package cpu

import (
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/devicetest"
)

func TestDevice(t *testing.T) {
	for name, o := range map[string]Options{
		"one worker": {Workers: 1}, "three": {Workers: 3}, "no assembly": {PlainGo: true},
	} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(testing.TB) kernels.Device { return New(o) })
		})
	}
	sets := instructionSets()
	for _, set := range sets[1:max(1, len(sets)-1)] { // between no assembly and the best
		t.Run(set.name, func(t *testing.T) {
			devicetest.Run(t, func(testing.TB) kernels.Device {
				d := New(Options{})
				d.instructions = set
				return d
			})
		})
	}
}
