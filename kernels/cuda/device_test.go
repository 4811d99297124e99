//go:build cuda

package cuda

import (
	"errors"
	"os/exec"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/devicetest"
)

// open returns device 0, or skips the test where there is none.
func open(t testing.TB, o Options) *Device {
	t.Helper()
	d, err := Open(0, o)
	if errors.Is(err, ErrNoDevice) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestDevice(t *testing.T) {
	for name, o := range map[string]Options{"Hopper": {}, "Plain": {Plain: true}} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t testing.TB) kernels.Device { return open(t, o) })
		})
	}
}

func TestPTXBelongsToSources(t *testing.T) {
	if out, err := exec.Command("./compile.sh", "--check").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestOpenRefusesUnknownIndex(t *testing.T) {
	n, err := Count()
	if errors.Is(err, ErrNoDevice) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []int{-1, n} {
		if _, err := Open(index, Options{}); err == nil {
			t.Errorf("device %d of %d opened", index, n)
		}
	}
}
