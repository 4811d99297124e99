package model

import "bitnet1/kernels"

// Muon says how a step changes the weights of the blocks with Options.Muon: by their momentum, made nearly orthogonal
// (kernels.Muon).
type Muon struct {
	LearningRate float64
	Beta         float64 // decay of the momentum, 0 to below 1
	Steps        int     // of the Newton–Schulz iteration: 3 or 5, say
	Decay        float64 // decoupled weight decay
}

// enqueueMuon updates the weights that Muon takes and that are not frozen, those of one shape together.
func (m *Model) enqueueMuon(u Update) {
	s := &m.store
	type shape struct{ rows, cols int }
	var shapes []shape
	at := map[shape][]int{}
	for i, p := range s.list {
		if !s.takesMuon(i) || s.frozen[i] {
			continue
		}
		of := shape{p.Shape[0], p.Shape[1]}
		if at[of] == nil {
			shapes = append(shapes, of)
		}
		at[of] = append(at[of], s.at[i])
	}
	for _, of := range shapes {
		update := kernels.Muon{
			Param: s.param, Grad: s.grad, Momentum: s.m, At: at[of], Rows: of.rows, Cols: of.cols,
			Beta: u.Muon.Beta, Steps: u.Muon.Steps,
		}
		if u.MaxNorm > 0 {
			update.SquaredNorm, update.MaxNorm = m.buffers.squaredNorm, u.MaxNorm
		}
		m.dev.Muon(update)
	}
}
