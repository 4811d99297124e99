package timing

import (
	"strings"
	"testing"
	"time"

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
	calls := map[string]int{}
	for _, o := range d.Operations() {
		calls[o.Name] = o.Calls
		if o.Time <= 0 || o.Product {
			t.Errorf("measured %+v", o)
		}
	}
	if calls["Zero"] != 4 || calls["AddSum"] != 1 || len(calls) != 2 {
		t.Errorf("counted %v", calls)
	}
	d.Reset()
	if len(d.Operations()) != 0 {
		t.Error("Reset left something")
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	err := WriteTable(&b, []Operation{
		{"LinearSigns", true, 8, 6 * time.Millisecond}, {"Attend", false, 4, 2 * time.Millisecond},
	}, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := `| operation                    | calls | ms   | %    |
|---                           |---    |---   |---   |
| LinearSigns                  | 4     | 3.00 | 75.0 |
| Attend                       | 2     | 1.00 | 25.0 |
| all                          |       | 4.00 | 100  |
| float work: all but products |       | 1.00 | 25.0 |
`
	if b.String() != want {
		t.Errorf("table is\n%swant\n%s", b.String(), want)
	}
}
