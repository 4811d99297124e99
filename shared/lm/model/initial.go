package model

import (
	"math"
	"runtime"
	"strings"
	"sync"

	"bitnet1/kernels/number/philox"
)

// initStep is the step counter of initial values. Training steps stay below it, so that no random word is drawn twice.
const initStep = math.MaxUint32

// Init sets parameters to the reference's initial distribution: weights normal with deviation 1/sqrt(n_in), alpha
// 1/sqrt(n_in) (o and down: further / sqrt(2 Layers)), theta 0, gains 1. It forgets the optimizer's state. The values
// are a function of seed, the parameter's place in Config.Parameters and the element's index.
func (m *Model) Init(seed uint64) error {
	s := &m.store
	largest := 0
	for _, p := range s.list {
		largest = max(largest, p.Size())
	}
	buffer := make([]float32, largest)
	for i, p := range s.list {
		data := buffer[:p.Size()]
		switch {
		case strings.HasSuffix(p.Name, ".weight"):
			fillNormal(data, 1/math.Sqrt(float64(p.Shape[1])), seed, uint32(i))
		case strings.HasSuffix(p.Name, ".alpha"):
			weight := s.list[s.index[strings.TrimSuffix(p.Name, "alpha")+"weight"]]
			fill(data, float32(m.outputScale(p.Name)/math.Sqrt(float64(weight.Shape[1]))))
		case strings.Contains(p.Name, "norm_"):
			fill(data, 1)
		default:
			clear(data)
		}
		m.setParameter(i, data)
	}
	if !m.options.Inference {
		m.dev.Zero(s.m)
		m.dev.Zero(s.v)
	}
	m.updates = 0
	m.quantize()
	return m.dev.Sync()
}

// outputScale makes alpha of o and down smaller, so that the sum that all layers add to the residual stream is about as
// large as one layer's would be.
func (m *Model) outputScale(name string) float64 {
	if strings.HasSuffix(name, ".attn.o.alpha") || strings.HasSuffix(name, ".down.alpha") {
		return 1 / math.Sqrt(2*float64(m.config.Layers))
	}
	return 1
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

// fillNormal draws x from the normal distribution, on all cores.
func fillNormal(x []float32, deviation float64, seed uint64, tensor uint32) {
	const chunk = 1 << 16
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for from := 0; from < len(x); from += chunk {
		slots <- struct{}{}
		wait.Go(func() {
			for i := from; i < min(from+chunk, len(x)); i++ {
				b := uint64(i / 2)
				w := philox.Block(philox.Key(seed), [4]uint32{uint32(b), uint32(b >> 32), tensor, initStep})
				x[i] = float32(deviation * philox.Normal(w[i%2*2], w[i%2*2+1]))
			}
			<-slots
		})
	}
	wait.Wait()
}
