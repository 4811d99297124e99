package model

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"bitnet1/kernels"
	"bitnet1/kernels/number/float16"
)

// store holds all parameters in one array. Gradients and optimizer state are arrays of the same order, so that
// clearing, clipping and updating take one operation each. First come the weights, then the gains, then the scales
// (alpha and theta). Parameters that are read together (q, k and v) are neighbours.
type store struct {
	list   []Parameter // as Config.Parameters
	at     []int       // where each begins
	index  map[string]int
	frozen []bool // updates leave it as it is
	flips  *flips // in the place of the weights' optimizer; nil: AdamW
	size   int
	muon   int // where weights begin that Muon updates, to the gains
	gains  int // where gains begin
	scales int // where scales begin

	base      int              // where param begins: at the gains, if of the weights only planes are kept
	quantized []kernels.Planes // then: of each weight
	staging   kernels.Floats   // and what weights pass through on their way to them

	param, grad, m kernels.Floats
	v              kernels.Floats // without the weights that Muon updates: see squareAt
	master         kernels.Floats // of the scales; nil if they are not rounded
	float16Scales  bool           // scales are rounded to float16
	kept           kernels.Floats // room for a Snapshot: param, m, v and master
}

func newStore(a *kernels.Allocator, c Config, o Options) store {
	s := store{list: c.Parameters(), index: map[string]int{}, float16Scales: o.ScaleBits == 16}
	s.at = make([]int, len(s.list))
	place := func(belongs func(name string) bool) {
		for i, p := range s.list {
			if belongs(p.Name) {
				s.at[i] = s.size
				s.size += p.Size()
			}
		}
	}
	place(func(n string) bool { return strings.HasSuffix(n, ".weight") })
	s.gains, s.muon = s.size, s.size
	if o.Muon {
		s.muon = c.Vocab * c.D // behind the codebook
	}
	place(func(n string) bool { return strings.Contains(n, "norm_") })
	s.scales = s.size
	// q, k and v are one linear: their alphas are neighbours, and so are their thetas.
	place(func(n string) bool { return strings.HasSuffix(n, ".alpha") })
	place(func(n string) bool { return strings.HasSuffix(n, ".theta") })
	for i, p := range s.list {
		s.index[p.Name] = i
	}
	if o.Inference && !o.Bonsai {
		s.base, s.quantized, s.staging = s.gains, make([]kernels.Planes, len(s.list)), a.Floats(c.staging())
	}
	s.param = a.Floats(s.size - s.base)
	if o.Inference {
		return s
	}
	if o.FlipThreshold > 0 {
		s.flips = newFlips(o.FlipThreshold, s.gains)
	}
	s.grad, s.m, s.v = a.Floats(s.size), a.Floats(s.size), a.Floats(s.squareAt(s.size))
	if s.float16Scales {
		s.master = a.Floats(s.size - s.scales)
	}
	if o.Snapshots {
		n := 2*s.size + s.squareAt(s.size)
		if s.float16Scales {
			n += s.size - s.scales
		}
		s.kept = a.Floats(n)
	}
	return s
}

// staging is the number of floats that weights pass through: 16 MiB of whole rows, or the largest weight.
func (c Config) staging() int {
	const most = 1 << 22
	largest, row := 0, 0
	for _, p := range c.Parameters() {
		if len(p.Shape) == 2 {
			largest, row = max(largest, p.Size()), max(row, p.Shape[1])
		}
	}
	return min(largest, max(most, row))
}

// slice returns the n values of x that begin with the named parameter; nil for a weight that is kept without latents.
func (s *store) slice(x kernels.Floats, name string, n int) kernels.Floats {
	at := s.at[s.index[name]] - s.base
	if x == nil || at < 0 {
		return nil
	}
	return x.Slice(at, at+n)
}

// trains says whether updates change any of the n values that begin with the named parameter.
func (s *store) trains(name string, n int) bool {
	at := s.at[s.index[name]]
	return len(s.trained(at, at+n)) > 0
}

// bindQuantized gives each weight of a linear its rows of the linear's quantized weight. The weights begin at index
// from; rows have in columns.
func (s *store) bindQuantized(weight kernels.Planes, from, in int) {
	for i, p := range s.list {
		if row := (s.at[i] - from) / in; s.at[i] >= from && row < weight.Rows() {
			s.quantized[i] = weight.Slice(row, row+p.Shape[0])
		}
	}
}

// squareAt is where v has AdamW's mean of squares for the value with this index. Muon keeps none.
func (s *store) squareAt(index int) int {
	if index >= s.gains {
		return index - (s.gains - s.muon)
	}
	return index
}

// same is the place of a value in an array of all parameters.
func same(index int) int { return index }

// masterAt is where master has the value with this index.
func (s *store) masterAt(index int) int { return index - s.scales }

// all is the condition that every parameter meets.
func all(int) bool { return true }

// takesMuon says whether Muon updates parameter i.
func (s *store) takesMuon(i int) bool { return s.at[i] >= s.muon && s.at[i] < s.gains }

// takesAdamW says whether AdamW updates parameter i.
func (s *store) takesAdamW(i int) bool { return !s.takesMuon(i) }

// isScale says whether parameter i is an alpha or a theta.
func (s *store) isScale(i int) bool { return s.at[i] >= s.scales }

// inOrder sorts list into the order of Config.Parameters. list must hold every parameter that belongs, exactly once and
// of the right shape. Other parameters of the result have no data.
func (s *store) inOrder(list []Parameter, belongs func(i int) bool) ([]Parameter, error) {
	ordered := make([]Parameter, len(s.list))
	err := s.every(Each(list), belongs, func(i int, p Parameter) { ordered[i] = p })
	return ordered, err
}

// every calls f with each parameter, in any order. The parameters must be those that belong.
func (s *store) every(parameters iter.Seq2[Parameter, error], belongs func(i int) bool,
	f func(i int, p Parameter)) error {
	given := make([]bool, len(s.list))
	for p, err := range parameters {
		if err != nil {
			return err
		}
		i, ok := s.index[p.Name]
		if !ok || !belongs(i) {
			return fmt.Errorf("parameter %s is not one of this model", p.Name)
		}
		if given[i] {
			return fmt.Errorf("parameter %s is given twice", p.Name)
		}
		if err := p.Check(s.list[i]); err != nil {
			return err
		}
		if wrong := p.NotFinite(); wrong != "" {
			return fmt.Errorf("parameter %s", wrong)
		}
		given[i] = true
		f(i, p)
	}
	for i, p := range s.list {
		if !given[i] && belongs(i) {
			return fmt.Errorf("parameter %s is missing", p.Name)
		}
	}
	return nil
}

// upload writes parameters that inOrder returned to an array in which place says where a value is.
func (m *Model) upload(dst kernels.Floats, list []Parameter, place func(index int) int) {
	for i, p := range list {
		if p.Data != nil {
			at := place(m.store.at[i])
			m.dev.Upload(dst.Slice(at, at+len(p.Data)), p.Data)
		}
	}
}

// Load sets every parameter. Parameters may come in any order. Load reads one at a time, so that no second copy of a
// large model has to exist; after an error some parameters are set. Scales are rounded to float16 unless
// Options.ScaleBits is 32.
func (m *Model) Load(parameters iter.Seq2[Parameter, error]) error {
	err := m.store.every(parameters, all, func(i int, p Parameter) { m.setParameter(i, p.Data) })
	if err != nil {
		return fmt.Errorf("load parameters: %w", err)
	}
	m.quantize()
	return m.dev.Sync()
}

// setParameter uploads parameter i. A scale is rounded to float16 where the store keeps float16.
func (m *Model) setParameter(i int, data []float32) {
	s := &m.store
	if s.at[i] < s.base {
		m.setQuantized(i, data)
		return
	}
	from, to := s.at[i], s.at[i]+len(data)
	if s.flips != nil && from < s.gains {
		data = s.flips.start(from, data)
	}
	if s.float16Scales && s.isScale(i) {
		if s.master != nil {
			m.dev.Upload(s.master.Slice(from-s.scales, to-s.scales), data)
		}
		data = slices.Clone(data)
		for j, x := range data {
			data[j] = float16.Round(x)
		}
	}
	m.dev.Upload(s.param.Slice(from-s.base, to-s.base), data)
}

// setQuantized quantizes weight i, as many rows at a time as staging holds.
func (m *Model) setQuantized(i int, data []float32) {
	s := &m.store
	in, out := s.list[i].Shape[1], s.list[i].Shape[0]
	rows := s.staging.Len() / in
	for from := 0; from < out; from += rows {
		to := min(from+rows, out)
		weight := s.staging.Slice(0, (to-from)*in)
		m.dev.Upload(weight, data[from*in:to*in])
		m.dev.Quantize(kernels.Linear{In: in, Out: to - from, Weight: weight, Quantized: s.quantized[i].Slice(from, to)})
	}
}

var errNoLatents = errors.New("the model was built with Options.Inference: its weights are quantized, without latents")

// Parameters returns copies of all parameters, in the order of Config.Parameters. A model for inference has no latents,
// unless it was built with Options.Bonsai, and returns an error.
func (m *Model) Parameters() ([]Parameter, error) {
	if m.store.base > 0 {
		return nil, errNoLatents
	}
	return m.download(m.store.param)
}

// Gradients returns copies of the gradients of the last Backward or Step, before clipping. The gradient of a frozen
// parameter is computed only where other gradients depend on it.
func (m *Model) Gradients() ([]Parameter, error) {
	if m.options.Inference {
		return nil, errInference
	}
	return m.download(m.store.grad)
}

func (m *Model) download(x kernels.Floats) ([]Parameter, error) {
	return m.store.cut(x, same, all, m.copied)
}

// copied downloads values into p.Data.
func (m *Model) copied(p *Parameter, values kernels.Floats) error {
	p.Data = make([]float32, values.Len())
	return m.dev.Download(p.Data, values)
}

// cut divides x, in which place says where a value is. For each parameter that belongs, cut calls give with the
// parameter and its part of x, and returns the parameters that give has completed.
func (s *store) cut(x kernels.Floats, place func(index int) int, belongs func(i int) bool,
	give func(p *Parameter, values kernels.Floats) error) ([]Parameter, error) {
	var list []Parameter
	for i, p := range s.list {
		if !belongs(i) {
			continue
		}
		at := place(s.at[i])
		if err := give(&p, x.Slice(at, at+p.Size())); err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// State is what training needs, beside the parameters, to go on as if it had never stopped.
type State struct {
	Updates  int         // updates done
	ExpAvg   []Parameter // AdamW's mean of gradients, one entry per parameter that AdamW updates
	ExpAvgSq []Parameter // and of their squares
	Momentum []Parameter // Muon's, one entry per weight that Muon updates
	Masters  []Parameter // alpha and theta before rounding to float16; empty: those that Load was given
	Counters []Counter   // of the weights, where they train by flipping
}

// State returns a copy of the optimizer's state.
func (m *Model) State() (State, error) {
	if m.options.Inference {
		return State{}, errInference
	}
	return m.state(m.store.m, m.store.v, m.store.master, m.copied)
}

func (m *Model) state(mean, square, master kernels.Floats,
	give func(p *Parameter, values kernels.Floats) error) (state State, err error) {
	s := &m.store
	state.Updates = m.updates
	if s.flips != nil {
		state.Counters = s.flips.list(s)
	}
	if state.ExpAvg, err = s.cut(mean, same, s.takesAdamW, give); err != nil {
		return State{}, err
	}
	if state.ExpAvgSq, err = s.cut(square, s.squareAt, s.takesAdamW, give); err != nil {
		return State{}, err
	}
	if state.Momentum, err = s.cut(mean, same, s.takesMuon, give); err != nil {
		return State{}, err
	}
	if master != nil {
		state.Masters, err = s.cut(master, s.masterAt, s.isScale, give)
	}
	return state, err
}

// SetState restores the optimizer's state. Call it after Load.
func (m *Model) SetState(state State) error {
	if m.options.Inference {
		return errInference
	}
	if f := m.store.flips; f != nil {
		if err := f.restore(&m.store, state.Counters); err != nil {
			return fmt.Errorf("restore counters: %w", err)
		}
	}
	mean, err := m.store.inOrder(state.ExpAvg, m.store.takesAdamW)
	if err != nil {
		return fmt.Errorf("restore exp_avg: %w", err)
	}
	square, err := m.store.inOrder(state.ExpAvgSq, m.store.takesAdamW)
	if err != nil {
		return fmt.Errorf("restore exp_avg_sq: %w", err)
	}
	momentum, err := m.store.inOrder(state.Momentum, m.store.takesMuon)
	if err != nil {
		return fmt.Errorf("restore momentum: %w", err)
	}
	if m.store.master != nil && len(state.Masters) > 0 {
		masters, err := m.store.inOrder(state.Masters, m.store.isScale)
		if err != nil {
			return fmt.Errorf("restore masters: %w", err)
		}
		m.upload(m.store.master, masters, m.store.masterAt)
	}
	m.upload(m.store.m, mean, same)
	m.upload(m.store.m, momentum, same)
	m.upload(m.store.v, square, m.store.squareAt)
	m.updates = state.Updates
	return m.dev.Sync()
}
