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

// muonParts update the weights that Muon takes and that are not frozen, those of one shape together. Each rank updates
// its own, and gives them to the others beside what follows.
func (m *Model) muonParts(u Update) (parts []part) {
	s := &m.store
	type shape struct{ rows, cols int }
	var shapes []shape
	matrices := map[shape][]int{} // parameters
	for i, p := range s.list {
		if !s.takesMuon(i) || s.frozen[i] {
			continue
		}
		of := shape{p.Shape[0], p.Shape[1]}
		if matrices[of] == nil {
			shapes = append(shapes, of)
		}
		matrices[of] = append(matrices[of], i)
	}
	for _, of := range shapes {
		update := kernels.Muon{
			Param: s.param, Grad: s.grad, Momentum: s.m, Rows: of.rows, Cols: of.cols, Beta: u.Muon.Beta, Steps: u.Muon.Steps,
		}
		for _, i := range matrices[of] {
			if m.updater(i) == m.rank() {
				update.At = append(update.At, s.at[i])
			} else {
				update.MomentumAt = append(update.MomentumAt, s.at[i])
			}
		}
		if u.MaxNorm > 0 {
			update.SquaredNorm, update.MaxNorm = m.buffers.squaredNorm, u.MaxNorm
		}
		parts = append(parts, part{func() { m.dev.Muon(update) }, m.exchangeOfMuon(matrices[of])})
	}
	return parts
}

// updater is the rank that updates parameter i by Muon: its iteration is the costly part. The ranks take parts of about
// one size, one behind the other. The momentum advances on all ranks, which is cheap, so each has all of the state.
func (m *Model) updater(i int) int {
	s := &m.store
	return (s.at[i] - s.muon) * m.ranks() / (s.gains - s.muon)
}

// exchangeOfMuon gives all ranks the matrices that each has updated. It is nil where there are no other ranks.
func (m *Model) exchangeOfMuon(matrices []int) func() {
	s, c := &m.store, m.options.Communicator
	if c == nil {
		return nil
	}
	return func() {
		var all []kernels.Broadcast
		for _, i := range matrices {
			all = append(all, kernels.Broadcast{X: s.param.Slice(s.at[i], s.at[i]+s.list[i].Size()), Root: m.updater(i)})
		}
		c.Broadcast(all...)
	}
}
