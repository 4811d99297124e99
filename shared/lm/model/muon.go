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
// its own, and gives them to the others behind the last part.
func (m *Model) muonParts(u Update) (parts []part) {
	s := &m.store
	type shape struct{ rows, cols int }
	var shapes []shape
	own, others := map[shape][]int{}, map[shape][]int{}
	for i, p := range s.list {
		if !s.takesMuon(i) || s.frozen[i] {
			continue
		}
		of := shape{p.Shape[0], p.Shape[1]}
		if own[of] == nil && others[of] == nil {
			shapes = append(shapes, of)
		}
		if m.updater(i) == m.rank() {
			own[of] = append(own[of], s.at[i])
		} else {
			others[of] = append(others[of], s.at[i])
		}
	}
	for _, of := range shapes {
		update := kernels.Muon{
			Param: s.param, Grad: s.grad, Momentum: s.m, At: own[of], MomentumAt: others[of], Rows: of.rows, Cols: of.cols,
			Beta: u.Muon.Beta, Steps: u.Muon.Steps,
		}
		if u.MaxNorm > 0 {
			update.SquaredNorm, update.MaxNorm = m.buffers.squaredNorm, u.MaxNorm
		}
		parts = append(parts, part{enqueue: func() { m.dev.Muon(update) }})
	}
	if len(parts) > 0 && m.options.Communicator != nil {
		parts[len(parts)-1].exchange = m.shareMuon
	}
	return parts
}

// updater is the rank that updates parameter i by Muon: its iteration is the costly part. The ranks take parts of about
// one size, one behind the other. The momentum advances on all ranks, which is cheap, so each has all of the state.
func (m *Model) updater(i int) int {
	s := &m.store
	return (s.at[i] - s.muon) * m.ranks() / (s.gains - s.muon)
}

// shareMuon gives all ranks the weights that each has updated.
func (m *Model) shareMuon() {
	s, c := &m.store, m.options.Communicator
	for root := range c.Ranks() {
		from, to := s.gains, s.muon
		for i, p := range s.list {
			if s.takesMuon(i) && m.updater(i) == root {
				from, to = min(from, s.at[i]), max(to, s.at[i]+p.Size())
			}
		}
		if from < to {
			c.Broadcast(s.param.Slice(from, to), root)
		}
	}
}
