package bit2

import (
	"encoding/json"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"strings"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

// WriteRandom writes a packed model of random weights, always the same ones: how fast a model is does not depend on its
// weights.
func WriteRandom(w io.Writer, c model.Config) error {
	about := checkpoint.Provenance{Tokenizer: "gpt2", Gamma: 0.5, Mix: 1, Recipe: json.RawMessage(`{}`)}
	return Write(w, c, about, randomParameters(c), nil)
}

// randomParameters makes one parameter at a time.
func randomParameters(c model.Config) iter.Seq2[model.Parameter, error] {
	random := rand.New(rand.NewPCG(1, 2))
	var data []float32
	return func(yield func(model.Parameter, error) bool) {
		for _, p := range c.Parameters() {
			if cap(data) < p.Size() {
				data = make([]float32, p.Size())
			}
			p.Data = data[:p.Size()]
			value := func() float32 { return random.Float32() - 0.5 }
			switch {
			case strings.HasSuffix(p.Name, ".alpha"):
				value = func() float32 { return float32(1 / math.Sqrt(float64(c.D))) }
			case strings.HasSuffix(p.Name, ".theta"):
				value = func() float32 { return 0 }
			case len(p.Shape) == 1:
				value = func() float32 { return 1 }
			}
			for i := range p.Data {
				p.Data[i] = value()
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}
