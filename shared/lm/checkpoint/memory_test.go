package checkpoint

import (
	"bytes"
	"runtime"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/model"
)

// allocated is how many bytes f takes from the heap, whether it gives them back or not.
func allocated(t *testing.T, f func() error) int {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := f(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// Of a file's parameters the largest alone has to fit into memory beside the model, which keeps the signs of its
// weights: all that is ever allocated, together, is bounded.
func TestParametersAreReadOneAtATime(t *testing.T) {
	c := model.Config{Vocab: 1024, D: 512, Layers: 6, Heads: 8, FF: 1024, Seq: 8, Eps: 1e-5, StreamBits: 4,
		Alibi: true}.V76()
	m := Model{Config: c, Parameters: c.Parameters(), Provenance: Provenance{Gamma: 0.5, Mix: 1}}
	largest, all := 0, 0
	for i, p := range m.Parameters {
		m.Parameters[i].Data = make([]float32, p.Size())
		largest, all = max(largest, 4*p.Size()), all+4*p.Size()
	}
	f, err := Open(save(t, func(b *bytes.Buffer) error { return Write(b, m) }))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const pieces = 256 << 10 // what is converted at once, for every tensor
	slack := pieces * len(m.Parameters)
	read := allocated(t, func() error {
		for _, err := range f.Parameters() {
			if err != nil {
				return err
			}
		}
		return nil
	})
	if most := largest + slack; read > most {
		t.Errorf("reading %d bytes of parameters allocated %d, want at most the largest of them and %d", all, read,
			slack)
	}
	loaded := allocated(t, func() error { _, _, err := f.Inference(cpu.New(cpu.Options{}), 1, 0); return err })
	signs := all / 32
	const activations = 1 << 20
	if most := 2*largest + signs + slack + activations; loaded > most {
		t.Errorf("loading %d bytes of parameters for inference allocated %d, want at most %d", all, loaded, most)
	}
}
