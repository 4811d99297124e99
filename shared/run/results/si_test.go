package results

import "testing"

// A prefix stands for at most three digits before the point; a number that is larger than all prefixes has none.
func TestSI(t *testing.T) {
	for v, want := range map[float64]string{12: "12", 12345: "12.3 k", 4.56e6: "4.56 M", 5.98e9: "5.98 G",
		2.8e12: "2.8 T", 2.8e16: "2.8e+16"} {
		if got := SI(v); got != want {
			t.Errorf("%g is written %q, want %q", v, got, want)
		}
	}
}
