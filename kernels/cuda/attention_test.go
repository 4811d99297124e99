//go:build cuda

package cuda

import (
	"os"
	"testing"

	"bitnet1/kernels"
)

// Heads of pointers whose weights do not fit together take turns: as few as there can be, and as even.
func TestTurnsOfHeads(t *testing.T) {
	if said, err := onFake(t, "TestTurnsOnFake"); err != nil {
		t.Errorf("%v:\n%s", err, said)
	}
}

// TestTurnsOnFake is for TestTurnsOfHeads.
func TestTurnsOnFake(t *testing.T) {
	if os.Getenv("BITNET1_FAKE_CUDA") == "" {
		t.Skip("runs within TestTurnsOfHeads")
	}
	d := open(t, Options{})
	d.hopper = true
	if err := d.loadKernels(); err != nil {
		t.Fatal(err)
	}
	d.StartProfile()
	const batch, heads, seq, tiles = 2, 3, 640, 10
	const weights = tiles * (tiles + 1) / 2 * 64 * 64 * 3 // of a head, 24 bits of each
	list := &kernels.Allocator{Device: d}
	signs := func() kernels.Planes { return list.Planes(batch*seq, heads*64, kernels.Sign()) }
	queries, keys, values := signs(), signs(), signs()
	dqkv, dOut := list.BFloats(3*batch*seq*heads*64), list.BFloats(batch*seq*heads*64)
	pointers := list.Ints(batch * heads * seq)
	if list.Err != nil {
		t.Fatal(list.Err)
	}
	for _, c := range []struct{ allowed, turns, heads int }{
		{1, 6, 1}, {2*weights - 1, 6, 1}, {2 * weights, 3, 2}, {4 * weights, 2, 3}, {6 * weights, 1, 6}, {9 * weights, 1, 6},
	} {
		d.weightBytes = c.allowed
		d.AttendBackward(dqkv, dOut, queries, keys, values, pointers, kernels.Attention{Kind: kernels.Pointer, Batch: batch,
			Seq: seq, Heads: heads, HeadDim: 64, Survivors: 1, Alibi: true, Gumbel: true})
		operations, err := d.Profile()
		if err != nil {
			t.Fatal(err)
		}
		turns := map[string]int{}
		for _, o := range operations {
			turns[o.Name] = o.Calls
		}
		bytes := d.memory.scratch["weights of pointers"].size
		if queries, keys := turns["dense_queries_wgmma_pointer"], turns["dense_keys_wgmma_pointer"]; queries != c.turns ||
			keys != c.turns || bytes != c.heads*weights {
			t.Errorf("%d bytes for weights: %d and %d turns with %d bytes, want %d of %d heads", c.allowed, queries, keys, bytes,
				c.turns, c.heads)
		}
	}
}
