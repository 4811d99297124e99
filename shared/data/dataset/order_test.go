package dataset_test

import (
	"testing"

	"bitnet1/shared/data/dataset"
)

func TestOrderIsAPermutation(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 65, 1000, 4096, 100_003} {
		for epoch := range 3 {
			p := dataset.Order(n, 42, epoch)
			if p.Len() != n {
				t.Fatalf("length %d of %d", p.Len(), n)
			}
			seen := make([]bool, n)
			for i := range n {
				j := p.At(i)
				if j < 0 || j >= n || seen[j] {
					t.Fatalf("n=%d epoch=%d: place %d has %d, out of range or twice", n, epoch, i, j)
				}
				seen[j] = true
			}
		}
	}
}

func TestOrderOutOfRange(t *testing.T) {
	p := dataset.Order(10, 0, 0)
	if p.At(-1) != -1 || p.At(10) != -1 || dataset.Order(-3, 0, 0).At(0) != -1 {
		t.Error("a place outside the order has something")
	}
}

// TestOrderIsRandom counts how often each thing comes at each place over many epochs and seeds: about equally often.
func TestOrderIsRandom(t *testing.T) {
	const epochs = 4000
	for _, n := range []int{2, 3, 5, 8, 10, 33} {
		count := make([]int, n*n)
		for e := range epochs {
			p := dataset.Order(n, uint64(e%7), e)
			for i := range n {
				count[i*n+p.At(i)]++
			}
		}
		// Chi squared with (n-1)^2 degrees of freedom: mean (n-1)^2, deviation sqrt(2)(n-1).
		expected, chi := float64(epochs)/float64(n), 0.0
		for _, c := range count {
			d := float64(c) - expected
			chi += d * d / expected
		}
		mean := float64((n - 1) * (n - 1))
		if chi > mean+6*1.5*float64(n-1)+10 {
			t.Errorf("n=%d: chi squared %.1f, expected about %.0f", n, chi, mean)
		}
	}
}

func TestOrderChanges(t *testing.T) {
	const n = 1000
	a := dataset.Order(n, 1, 0)
	for name, b := range map[string]dataset.Permutation{"seed": dataset.Order(n, 2, 0), "epoch": dataset.Order(n, 1, 1),
		"both": dataset.Order(n, 0, 1)} {
		same := 0
		for i := range n {
			if a.At(i) == b.At(i) {
				same++
			}
		}
		if same > 12 {
			t.Errorf("another %s leaves %d of %d places as they were", name, same, n)
		}
	}
}

// TestOrderIsFrozen: a change would reorder the data of every run that is resumed.
func TestOrderIsFrozen(t *testing.T) {
	want := []int{823, 786, 292, 528, 21, 102, 748, 676}
	for i := range want {
		if got := dataset.Order(1000, 7, 3).At(i); got != want[i] {
			t.Errorf("place %d: %d, was %d", i, got, want[i])
		}
	}
}

func BenchmarkOrder(b *testing.B) {
	p, i := dataset.Order(5_000_000, 1, 0), 0
	for b.Loop() {
		i = p.At(i)
	}
}
