//go:build cuda

package cuda

import (
	"errors"
	"os/exec"
	"strings"
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

// Kernels whose blocks stay have less to do in these tests than there are blocks, unless there are only a few.
func TestDevice(t *testing.T) {
	for name, o := range map[string]Options{"Hopper": {}, "Plain": {Plain: true}, "TwoMultiprocessors": {}} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t testing.TB) kernels.Device {
				d := open(t, o)
				if name == "TwoMultiprocessors" {
					d.multiprocessors, d.weightBytes = 2, 1
				}
				return d
			})
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

// What does not fit is an error that says how much was asked for and how much there is, and leaves the device usable.
func TestMemoryThatIsNotThere(t *testing.T) {
	d := open(t, Options{})
	_, err := d.NewFloats(1 << 37)
	if err == nil || !strings.Contains(err.Error(), "512.00 GiB") || !strings.Contains(err.Error(), "free") {
		t.Errorf("512 GiB of floats gave %v", err)
	}
	if _, err := d.NewFloats(1000); err != nil {
		t.Errorf("a small buffer afterwards: %v", err)
	}
}

// An operation that fails while a graph is recorded is what Capture reports.
func TestFailureInCapture(t *testing.T) {
	d := open(t, Options{})
	x, err := d.NewFloats(10)
	if err != nil {
		t.Fatal(err)
	}
	short, err := d.NewFloats(5)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Capture(func() { d.Normalize(kernels.Activation{Floats: short}, x, kernels.RMSNorm{Gain: x, Eps: 1e-5}) })
	if err == nil || !strings.Contains(err.Error(), "Normalize") {
		t.Errorf("a failure within Capture gave %v", err)
	}
}
