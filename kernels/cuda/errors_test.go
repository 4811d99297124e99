//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// These need no GPU: they look at messages alone.

func TestWhatIsSupported(t *testing.T) {
	for _, c := range []struct {
		major, minor, driver int
		want                 string // nothing: supported
	}{
		{9, 0, 13000, ""}, {8, 0, 12000, ""}, {12, 0, 12080, ""},
		{9, 0, 11080, "knows CUDA 11.8: the kernels need CUDA 12.0 or later: update the driver"},
		{7, 5, 12040, "GPU has compute capability 7.5: 8.0 (Ampere) or later is needed"},
	} {
		err := supports("GPU", c.major, c.minor, c.driver)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("capability %d.%d, driver %d: %v, want %q", c.major, c.minor, c.driver, err, c.want)
		}
	}
}

func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{cu.LaunchFailed, "start the program again"},
		{cu.EccUncorrectable, "nvidia-smi"},
		{driver.Result(719), "the device is lost"},
		{driver.Result(700), "please report this"},
		{cu.InvalidPtx, "update the NVIDIA driver"},
		{driver.Result(222), "update the NVIDIA driver"},
		{cu.SystemNotReady, "not ready"},
	} {
		err := advise(fmt.Errorf("kernel adamw: %w", c.err))
		if !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.err) {
			t.Errorf("%v became %q, want %q in it", c.err, err, c.want)
		}
		if again := advise(fmt.Errorf("queued work: %w", err)); strings.Count(again.Error(), c.want) != 1 {
			t.Errorf("advice is given twice: %v", again)
		}
	}
	for _, err := range []error{cu.OutOfMemory, driver.Result(2)} {
		if !errors.Is(advise(err), kernels.ErrMemory) {
			t.Errorf("%v is not marked as lack of memory", err)
		}
	}
	for err, want := range map[error]bool{driver.Result(719): true, driver.Result(700): true, cu.InvalidPtx: false} {
		var u interface{ Unfit() bool }
		if !errors.As(fmt.Errorf("step 3: %w", advise(err)), &u) || u.Unfit() != want {
			t.Errorf("%v: the process has to start again: %t expected", err, want)
		}
	}
	other := errors.New("no driver's")
	if advise(other) != other || advise(nil) != nil {
		t.Error("an error that is not the driver's was changed")
	}
}

// What is counted is what the driver hands out: whole pages where it is much.
func TestGranted(t *testing.T) {
	for bytes, want := range map[int]int{1: 512, 512: 512, 1<<20 - 1: 1 << 20, 1 << 20: 2 << 20, 2<<20 + 1: 4 << 20} {
		if got := granted(bytes); got != want {
			t.Errorf("%d bytes take %d, want %d", bytes, got, want)
		}
	}
}

// A dry run takes the memory that the same calls take, and none of it.
func TestDryRun(t *testing.T) {
	d := open(t, Options{})
	work := func(d kernels.Device) error {
		x, err := d.NewFloats(5 << 20)
		if err != nil {
			return err
		}
		d.Upload(x, make([]float32, x.Len()))
		d.AddSum(x, x) // takes working memory
		return d.Sync()
	}
	before := d.memory.granted
	bytes, err := d.DryRun(work)
	if err != nil || d.memory.granted != before {
		t.Fatalf("a dry run took %d bytes of the device (%v)", d.memory.granted-before, err)
	}
	room, err := d.Room()
	if err != nil || room < bytes {
		t.Fatalf("there is room for %d bytes (%v)", room, err)
	}
	fresh := open(t, Options{})
	if err := work(fresh); err != nil {
		t.Fatal(err)
	}
	if took := fresh.memory.granted; took != bytes {
		t.Errorf("the dry run took %d bytes, the calls %d", bytes, took)
	}
}
