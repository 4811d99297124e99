package checkpoint_test

import (
	"fmt"
	"os"
	"path/filepath"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

// A model is written as a checkpoint and opened again. Its parameters are read one at a time.
func Example() {
	c := model.Config{Vocab: 256, D: 64, Layers: 1, Heads: 1, FF: 128, Seq: 16, Eps: 1e-5, StreamBits: 4,
		Alibi: true}.V76()
	m := checkpoint.Model{Config: c, Parameters: c.Parameters(),
		Provenance: checkpoint.Provenance{Step: 100, Tokenizer: "bytes", Gamma: 0.5, Mix: 1}}
	for i, p := range m.Parameters {
		m.Parameters[i].Data = make([]float32, p.Size())
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "step-000100.safetensors")
	file, err := os.Create(path)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	if err := checkpoint.Write(file, m); err != nil {
		panic(err)
	}

	f, err := checkpoint.Open(path)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	n := 0
	for p, err := range f.Parameters() {
		if err != nil {
			panic(err)
		}
		n += len(p.Data)
	}
	fmt.Printf("step %d of a model with %d layers and %d parameters\n", f.Step, f.Config.Layers, n)
	// Output:
	// step 100 of a model with 1 layers and 50752 parameters
}
