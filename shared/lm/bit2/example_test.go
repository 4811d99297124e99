package bit2_test

import (
	"bytes"
	"fmt"

	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

// The latents of a model are packed, one bit a weight, and come back as -1 and +1.
func Example() {
	c := model.Config{Vocab: 256, D: 64, Layers: 1, Heads: 1, FF: 128, Seq: 16, Eps: 1e-5, StreamBits: 4,
		Alibi: true}.V76()
	parameters, floats := c.Parameters(), 0
	for i := range parameters {
		parameters[i].Data = make([]float32, parameters[i].Size())
		for j := range parameters[i].Data {
			parameters[i].Data[j] = 0.25 - 0.5*float32(j%3) // 0.25, -0.25, -0.75, 0.25 …
		}
		floats += parameters[i].Size()
	}
	var file bytes.Buffer
	about := checkpoint.Provenance{Step: 100, Tokenizer: "bytes", Gamma: 0.5, Mix: 1}
	if err := bit2.Write(&file, c, about, model.Each(parameters), nil); err != nil {
		panic(err)
	}
	fmt.Printf("%d parameters: %d bytes as float32, %d packed\n", floats, 4*floats, file.Len())

	f, err := bit2.New("model.bit2", bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		panic(err)
	}
	defer f.Close()
	for p, err := range f.Parameters() {
		if err != nil {
			panic(err)
		}
		if p.Name == "blocks.0.up.weight" || p.Name == "norm_out" {
			fmt.Println(p.Name, p.Shape, p.Data[:4])
		}
	}
	// Output:
	// 50752 parameters: 203008 bytes as float32, 11856 packed
	// norm_out [64] [0.25 -0.25 -0.75 0.25]
	// blocks.0.up.weight [128 64] [1 -1 -1 1]
}
