package model

import (
	"fmt"

	"bitnet1/kernels"
)

// Options says how much of a model is built, and for what.
type Options struct {
	Batch int // sequences that are computed together; default 1
	Seq   int // tokens per sequence, at most Config.Seq; default Config.Seq
	// ScaleBits is 16 (the default) or 32. 16 keeps alpha and theta at float16 values, so that packing loses nothing.
	ScaleBits int
	// Inference builds a model without gradients and optimizer, and without latents unless Bonsai is set. Layers share
	// memory for activations. Backward and Step fail.
	Inference bool
	// GradBits is 2 to 8, to round gradients to integers of so many bits for products, or 16 (the default) for floats.
	GradBits int
	// WeightGradBits is 2 to 8: the bits of these integers in products that give weights' gradients, and in both products
	// of the language-model head. 0 (the default) is as GradBits. Where GradBits is 16 nothing is rounded.
	WeightGradBits int
	Freeze         []string // patterns of parameters that do not train: see Config.Frozen
	// FlipThreshold above 0 trains without float latents. A weight flips when the gradients that want its other sign
	// exceed those that want its sign by more than the threshold. At most 126, and not together with Bonsai.
	FlipThreshold int
	Muon          bool // Muon updates the weights of the blocks, AdamW all else: see Update.Muon
	Documents     Documents
	Snapshots     bool // memory on the device for Snapshot: a copy of parameters and optimizer state
	// FixedSums adds up the gradients of a step's micro-batches as integers, so that their sums do not depend on how the
	// micro-batches are divided among ranks. A step then has at most kernels.MaxTerms micro-batches.
	FixedSums bool
	// Communicator joins the model with the other ranks that train it; nil: it trains alone. It needs FixedSums.
	Communicator kernels.Communicator
	// Abandon is asked between layers whether to give up the pass. Then Step, Backward and Losses return ErrAbandoned,
	// and parameters and optimizer state stay as they were. A device that replays captured programs asks between
	// micro-batches only. The other ranks are not told, and wait until the communicator is aborted.
	Abandon func() bool
	Bonsai  bool // weights blend from latent to quantized with Settings.Mix; costs a second copy of every weight
}

func (o *Options) ensureDefaults(c Config) error {
	if o.Batch == 0 {
		o.Batch = 1
	}
	if o.Seq == 0 {
		o.Seq = c.Seq
	}
	if o.ScaleBits == 0 {
		o.ScaleBits = 16
	}
	if o.GradBits == 0 {
		o.GradBits = kernels.FloatBits
	}
	switch {
	case o.Batch < 1 || o.Batch > 1<<20:
		return fmt.Errorf("model options: batch is %d, want at least 1", o.Batch)
	case o.Seq < 1 || o.Seq > c.Seq:
		return fmt.Errorf("model options: seq is %d, want 1 to the configuration's %d", o.Seq, c.Seq)
	case o.ScaleBits != 16 && o.ScaleBits != 32:
		return fmt.Errorf("model options: scale bits are %d, want 16 or 32", o.ScaleBits)
	case o.WeightGradBits != 0 && (o.WeightGradBits < 2 || o.WeightGradBits > 8):
		return fmt.Errorf("model options: weight grad bits are %d, want 2 to 8, or 0 for the other gradients' bits",
			o.WeightGradBits)
	case o.FlipThreshold < 0 || o.FlipThreshold > maxFlipThreshold:
		return fmt.Errorf("model options: flip threshold is %d, want 1 to %d, or 0 for float latents", o.FlipThreshold,
			maxFlipThreshold)
	case o.FlipThreshold > 0 && o.Muon:
		return fmt.Errorf("model options: weights that flip have no latents for Muon to update")
	case o.FlipThreshold > 0 && o.Bonsai:
		return fmt.Errorf("model options: weights that flip have no latents for bonsai to blend")
	case o.FlipThreshold > 0 && c.Codebook() != kernels.Sign():
		return fmt.Errorf("model options: weights that flip are ±1, and the codebook's have %d codebook_bits: want 1, "+
			"or a flip threshold of 0", c.CodebookBits)
	}
	blocks, _ := GradBits(o.GradBits, o.WeightGradBits)
	if err := kernels.CheckGradBits(blocks); err != nil {
		return fmt.Errorf("model options: grad bits: %w", err)
	}
	if err := c.CheckSums(o.Batch*o.Seq, o.GradBits, o.WeightGradBits); err != nil {
		return fmt.Errorf("model options: %w", err)
	}
	if err := o.Documents.validate(c); err != nil {
		return err
	}
	return o.checkRanks()
}

// GradBits are the bits of gradients in the products of the blocks' linears, and in those of the language-model head,
// with these Options.GradBits and Options.WeightGradBits.
func GradBits(bits, weightBits int) (blocks, lmHead kernels.GradBits) {
	if bits == kernels.FloatBits || weightBits == 0 {
		weightBits = bits
	}
	return kernels.GradBits{Input: bits, Weight: weightBits}, kernels.GradBits{Input: weightBits, Weight: weightBits}
}

// Settings are what one pass depends on beside parameters and tokens.
type Settings struct {
	Gamma  float64     // RWSP: the weight of rank r is proportional to Gamma^r
	Tau    float64     // Pointer: temperature of the backward softmax; 0 means 1
	Mix    float64     // with Options.Bonsai: 0 latent weights … 1 quantized; otherwise every weight is quantized
	Gumbel bool        // Pointer: draw noise from Seed and Step, as training does
	Noise  [][]float32 // Pointer: noise of each layer, Batch × Heads × Seq × Seq, in place of drawn noise
	Seed   uint64      // of the drawn noise
	Step   uint64      // of the drawn noise
	Seq    int         // tokens of the sequences into which those of Options.Seq are cut; a divisor; 0: they stay whole
}

// Model is a language model on a device. It serves one goroutine at a time.
type Model struct {
	config  Config
	options Options
	dev     kernels.Device
	store   store
	buffers buffers
	sums    *fixedSums // nil: gradients are added up as floats
	layers  []layer

	codebook  kernels.Linear
	dCodebook kernels.LinearGradient
	normOut   kernels.RMSNorm
	dGainOut  kernels.Floats

	settings Settings
	mixed    bool // weights are a blend in this pass
	blended  float64
	bound    uint16         // linears that have been given an ID
	logits   kernels.Floats // a part of them, once there were any
	scalars  kernels.Scalars
	updates  int
	programs map[any]func()

	readsKept bool // each layer has its own attnOut, though the model is for inference
}

// New allocates a model on dev. Its parameters are zero until Init or Load.
func New(c Config, dev kernels.Device, o Options) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := o.ensureDefaults(c); err != nil {
		return nil, err
	}
	m := &Model{config: c, options: o, dev: dev, blended: -1, programs: map[any]func(){}}
	a := &kernels.Allocator{Device: dev}
	frozen, err := c.Frozen(o.Freeze)
	if err != nil {
		return nil, err
	}
	m.store = newStore(a, c, o)
	m.store.frozen = frozen
	m.bindLayers(a)
	m.buffers = m.newBuffers(a)
	if o.FixedSums && !o.Inference {
		m.sums = m.store.newFixedSums(a, c.Layers, m.buffers.totalLoss)
	}
	if a.Err != nil {
		return nil, fmt.Errorf("build a model of d = %d, %d layers, batch %d × %d: %w", c.D, c.Layers, o.Batch, o.Seq,
			a.Err)
	}
	return m, nil
}

// Config is the configuration the model was built with.
func (m *Model) Config() Config { return m.config }

// Options are the options the model was built with, defaults filled in.
func (m *Model) Options() Options { return m.options }

// rows is the number of tokens computed together.
func (m *Model) rows() int { return m.options.Batch * m.options.Seq }
