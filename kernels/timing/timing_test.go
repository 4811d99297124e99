package timing

import (
	"slices"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/kernels/devicetest"
)

// The decorated device computes what the device does.
func TestDevice(t *testing.T) {
	devicetest.Run(t, func(testing.TB) kernels.Device { return New(cpu.New(cpu.Options{})) })
}

func TestMeasures(t *testing.T) {
	d := New(cpu.New(cpu.Options{}))
	x, _ := d.NewFloats(100)
	sum, _ := d.NewFloats(1)
	for range 3 {
		d.Zero(x)
	}
	d.AddSum(sum, x)
	replay, err := d.Capture(func() { d.Zero(x) })
	if err != nil {
		t.Fatal(err)
	}
	replay()
	operations, err := d.Profile()
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for _, o := range operations {
		calls[o.Name] = o.Calls
		if want := map[string]Category{"Zero": Copies, "AddSum": Optimizer}[o.Name]; o.Time <= 0 ||
			o.Category != want || o.Float != (want == Optimizer) {
			t.Errorf("measured %+v", o)
		}
	}
	if calls["Zero"] != 4 || calls["AddSum"] != 1 || len(calls) != 2 {
		t.Errorf("counted %v", calls)
	}
	if again, err := d.Profile(); len(again) != 0 || err != nil {
		t.Errorf("measured %v twice (%v)", again, err)
	}
}

// Operations of one name are added up. The longest come first, and of equal times the first by name.
func TestSum(t *testing.T) {
	got := Sum([]Operation{{Name: "b", Calls: 1, Time: 2}, {Name: "c", Calls: 1, Time: 1}, {Name: "a", Calls: 2, Time: 2},
		{Name: "c", Calls: 3, Bytes: 8, Time: 4}})
	want := []Operation{{Name: "c", Calls: 4, Bytes: 8, Time: 5}, {Name: "a", Calls: 2, Time: 2},
		{Name: "b", Calls: 1, Time: 2}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
