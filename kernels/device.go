package kernels

import (
	"errors"
	"math"
	"slices"
)

// Floats is device memory for float32 values, or for bfloat16 values in their place: see Device.NewBFloats.
type Floats interface {
	Len() int
	BFloat16() bool            // the values are kept as bfloat16
	Slice(from, to int) Floats // shares memory
}

// Ints is device memory for int32 values.
type Ints interface {
	Len() int
	Slice(from, to int) Ints // shares memory
}

// Longs is device memory for int64 values.
type Longs interface {
	Len() int
	Slice(from, to int) Longs // shares memory
}

// Planes is device memory for a matrix of quantized values, packed as bit planes.
type Planes interface {
	Rows() int
	Cols() int
	Quantization() Quantization
	Slice(from, to int) Planes // rows from..to-1; shares memory
}

// Activation is what a linear reads: planes or, where it is not quantized, floats. Exactly one of the two is set.
type Activation struct {
	Planes Planes // rows × In
	Floats Floats // rows*In values
}

// Rows is the number of rows of x, which have width values each.
func (x Activation) Rows(width int) int {
	if x.Floats != nil {
		return x.Floats.Len() / width
	}
	return x.Planes.Rows()
}

// Slice is rows from..to-1 of x, which have width values each; shares memory.
func (x Activation) Slice(width, from, to int) Activation {
	if x.Floats != nil {
		return Activation{Floats: x.Floats.Slice(from*width, to*width)}
	}
	return Activation{Planes: x.Planes.Slice(from, to)}
}

// Linear is a linear with a quantized weight, u = Alpha * (x · Q(Weight)ᵀ) - Theta. Q is the quantization of Quantized:
// Sign for the matrices of blocks, Sign or Normal for the codebook. Several linears that read the same input may be one
// Linear, with their output channels one after the other.
type Linear struct {
	In, Out      int
	ID           uint16 // of a model's linears; a counter of the random rounding of gradients
	Weight       Floats // latent, Out × In
	Quantized    Planes // Q(Weight), kept by Quantize
	Mixed        Floats // bonsai's effective weight, kept by Quantize; nil once every weight is quantized
	Alpha, Theta Floats // Out each
}

// LinearGradient receives the gradients of a Linear's parameters. A gradient that is nil is not wanted. Weight and
// Alpha are both set or both nil: they come from one product, which is not computed when they are nil.
type LinearGradient struct{ Weight, Alpha, Theta Floats }

// GradBits are the bits of the integers to which a linear's gradients are rounded before they are multiplied: both 2 to
// 8, or both FloatBits, where they stay floats.
type GradBits struct {
	Input  int // for dx
	Weight int // for the gradients of weights and alpha
}

// Rounded says whether the gradients become integers.
func (g GradBits) Rounded() bool { return g.Input != FloatBits }

// RMSNorm is gain * x / rms(x) with rms(x) = sqrt(mean(x²) + Eps), row by row (Zhang and Sennrich 2019), and then a
// rotation. A row has as many values as Gain.
type RMSNorm struct {
	Gain Floats
	Eps  float64
	// Rotation is 0, or the power of two, a divisor of the row's length, that is the size of blocks: each block of a row
	// is multiplied by the orthonormal Hadamard matrix of that size. In float64 and in this order: the products gain * x,
	// butterflies a+b and a-b of values 1, 2, 4 … apart, then one product with (1/rms(x)) * (1/sqrt(Rotation)). So what
	// cancels is 0 whatever rms(x) is, and every device finds the same levels and masks. Signs are those before the last
	// product. The backward pass rotates the gradient that passes in the same way, in float32 or float64.
	Rotation int
}

// Derivative is what the gradient of an activation is multiplied by to be the gradient of u, value by value. The zero
// value is 1 everywhere. At most one of the two is set.
type Derivative struct {
	Mask    Planes // of Sign: 1 where a bit is set and 0 elsewhere, the mask of the straight-through estimator (STE)
	Factors Floats // rows × channels, float32 or bfloat16: of the squared ReLU
}

// KShift makes output channels From..To-1 of a linear read an earlier token. Their product at token t becomes
// y[t-Offset], or y[t-Offset] + y[t] with Self, where y before the start of t's document is 0. The zero value shifts
// nothing.
type KShift struct {
	From, To int
	Offset   int
	Self     bool
	Seq      int  // tokens per sequence
	Starts   Ints // of documents; may be nil
}

// RoundingSeed keeps the random numbers of rounding apart from the other random numbers of the same seed.
const RoundingSeed = 0x524f_554e_4449_4e47

// Scalars are the values that change from step to step. An operation reads them when it runs, not when it is enqueued.
type Scalars struct {
	Seed, Step   uint64  // counters of the Gumbel noise and of the rounding of gradients
	Micro        uint32  // micro-batch within the step, below 2^16, a counter of the noise and of rounding
	Gamma        float64 // RWSP: the weight of rank r is proportional to Gamma^r
	Tau          float64 // Pointer: temperature of the softmax in the backward pass
	Mix          float64 // bonsai: 0 latent, 1 quantized
	GradScale    float64 // factor on the gradient of every token's loss: 1 / number of targets in the step
	LearningRate float64
	Correction1  float64 // 1 - Beta1^n at the n-th update, from 1
	Correction2  float64 // 1 - Beta2^n
	MuonRate     float64 // the learning rate of Muon
	Decay        float64 // decoupled weight decay of AdamW, where Adam.Decays: a step takes LearningRate*Decay of a value
	MuonDecay    float64 // of Muon: a step takes MuonRate*MuonDecay of a value
}

// Adam describes one AdamW update of equally long buffers.
type Adam struct {
	Param, Grad, M, V Floats
	Master            Floats // if set, it is updated, and Param becomes Master rounded to float16
	Beta1, Beta2, Eps float64
	Decays            bool    // by Scalars.Decay
	SquaredNorm       Floats  // 1 value: Σ gradient² over all parameters; nil: no clipping
	MaxNorm           float64 // gradients are scaled by min(1, MaxNorm / (sqrt(SquaredNorm) + 1e-6))
}

// NewtonSchulz are the coefficients of the iteration of Muon.
var NewtonSchulz = [3]float32{3.4445, -4.7750, 2.0315}

// Muon describes one update of matrices of one shape by their momentum, made nearly orthogonal (Jordan et al. 2024,
// kellerjordan.github.io/posts/muon). For each matrix W, Rows × Cols, with gradient G and momentum M, in this order:
//
//	M = Beta*M + (1 - Beta)*G
//	U = Beta*M + (1 - Beta)*G
//	W = (1 - MuonRate*MuonDecay) * W - MuonRate * sqrt(max(1, Rows/Cols)) * orthogonal(U)
//
// orthogonal is Steps steps of the Newton–Schulz iteration with the coefficients a, b, c of NewtonSchulz:
//
//	X = U / (‖U‖ + 1e-7)     ‖·‖ the root of the sum of squares
//	X = a X + (b A + c A²) X     A = X Xᵀ; of Xᵀ, where Rows > Cols
//
// A device may keep X and A in bfloat16. Momentum and parameters are float32.
type Muon struct {
	Param, Grad, Momentum Floats
	At                    []int // where each matrix begins in Param, Grad and Momentum
	MomentumAt            []int // where matrices begin whose momentum alone is advanced: another rank updates them
	Rows, Cols            int
	Beta                  float64 // decay of the momentum, 0 to below 1
	Steps                 int     // of the iteration, at least 1
	SquaredNorm           Floats  // as Adam's: gradients are clipped before anything else
	MaxNorm               float64
}

// Extent is the number of values of a buffer that reaches to the end of the last matrix.
func (u Muon) Extent() int {
	n := 0
	for _, at := range slices.Concat(u.At, u.MomentumAt) {
		n = max(n, at+u.Rows*u.Cols)
	}
	return n
}

// RateFactor is sqrt(max(1, Rows/Cols)), by which the learning rate of a tall matrix is larger.
func (u Muon) RateFactor() float64 { return math.Sqrt(max(1, float64(u.Rows)/float64(u.Cols))) }

// Reader copies memory to the host while its device goes on. It serves one goroutine, which need not be the device's.
type Reader interface {
	// Read waits for the operations that were enqueued before the reader was made. Then it copies len(dst) values from
	// the start of src. No operation enqueued after the reader was made may write src.
	Read(dst []float32, src Floats) error
}

// ErrMemory is wrapped by the errors of allocations that do not fit a device.
var ErrMemory = errors.New("out of device memory")

// DryRunner is a Device of limited memory that can count the memory of calls without making them.
type DryRunner interface {
	Device
	// Room returns how many bytes buffers and working memory may take: the free bytes and the bytes that this device
	// holds.
	Room() (int, error)
	// DryRun calls f with a device that allocates, computes and copies nothing. It returns how many bytes of device
	// memory the calls of f would have taken.
	DryRun(f func(Device) error) (bytes int, err error)
}

// Device owns memory and computes on it. A Device serves one goroutine at a time.
type Device interface {
	// Name says what computes.
	Name() string

	// NewFloats, NewBFloats, NewInts, NewLongs and NewPlanes return zeroed memory, or an error that names the size. An
	// error for lack of memory wraps ErrMemory.
	NewFloats(n int) (Floats, error)
	// NewBFloats returns memory that keeps bfloat16: written values are rounded to nearest, ties to even. It holds
	// gradients between operations:
	//
	//   - dx and dy of LinearBackward, dx of CrossEntropyBackward, dx of EmbedBackward;
	//   - dx and dOut of NormalizeBackward, both or neither;
	//   - dqkv and dOut of AttendBackward, both or neither. Where all keys are read, dqkv need only be within 1e-3 of
	//     the norm of the rounded gradients;
	//   - Factors of a Derivative, whatever the gradients are.
	//
	// It can be cleared, uploaded and downloaded. All other operations refuse it.
	NewBFloats(n int) (Floats, error)
	NewInts(n int) (Ints, error)
	NewLongs(n int) (Longs, error)
	NewPlanes(rows, cols int, q Quantization) (Planes, error)

	// Upload and UploadInts copy len(src) values to the start of dst. src may be reused at once.
	Upload(dst Floats, src []float32)
	UploadInts(dst Ints, src []int32)
	// SetScalars replaces the scalars for operations that are enqueued or replayed after it.
	SetScalars(s Scalars)

	// Download and DownloadInts wait for all operations, then copy len(dst) values from the start of src.
	Download(dst []float32, src Floats) error
	DownloadInts(dst []int32, src Ints) error
	// DownloadPlanes copies rows × planes × ceil(cols/64) words: bit c%64 of word c/64 is column c, and padding bits
	// are zero.
	DownloadPlanes(dst []uint64, src Planes) error
	// NewReader returns a reader for what has been enqueued so far. A device has one reader: an earlier one must not be
	// used.
	NewReader() (Reader, error)
	// Sync waits for all operations and returns the first failure since the device was made.
	Sync() error

	// Capture records the operations that enqueue enqueues, without running them, and returns a function that runs
	// them. Uploads and downloads are not recorded. A device without graphs returns enqueue itself.
	Capture(enqueue func()) (replay func(), err error)
	// Close frees all memory of the device.
	Close() error

	// Zero clears x.
	Zero(x Floats)
	// Copy copies src to the start of dst.
	Copy(dst, src Floats)
	// AddSum adds the sum of x to dst[0].
	AddSum(dst, x Floats)
	// AddSumSquares adds the sum of squares of x to dst[0].
	AddSumSquares(dst, x Floats)

	// ZeroLongs clears x.
	ZeroLongs(x Longs)
	// AddFixed adds each value of x, rounded to the nearest unit, ties to even, to its sum. A value that is not finite, or
	// not less than the sums' limit, is counted in Overflow instead.
	AddFixed(sums FixedSums, x Floats)
	// SetFixed is AddFixed to sums of 0, whatever they hold. Overflow counts on.
	SetFixed(sums FixedSums, x Floats)
	// ReadFixed writes sums to x, rounded to float32 to nearest, ties to even. Where Overflow is not 0, all of x is NaN.
	ReadFixed(x Floats, sums FixedSums)

	// Quantize writes Q(l.Weight) to l.Quantized and, unless l.Mixed is nil, the effective weight of bonsai to l.Mixed:
	// (1-Mix) * W / mean|W_row| + Mix * Q(W). Levels of a normal are those of W / sqrt(max(mean(W_row²), 1e-24)), in
	// float64; the levels themselves are not scaled back.
	Quantize(l Linear)

	// Embed writes row tokens[i] of the codebook's effective weight to row i of x, len(tokens) × In.
	Embed(x Floats, tokens Ints, codebook Linear)
	// EmbedBackward adds row i of dx to row tokens[i] of dWeight, in the order of i. Rows have width values.
	EmbedBackward(dWeight, dx Floats, tokens Ints, width int)

	// Normalize writes Q(n(x)) to out. Q is the quantization of out.
	Normalize(out Activation, x Floats, n RMSNorm)
	// NormalizeBackward takes dOut, the gradient of Normalize's output, which was quantized to q, and adds to dx and
	// dGain. The gradient passes where what was quantized, so after the rotation, lies within q's PassLimit. Products of
	// gain, x and dOut must stay within the range of float32.
	NormalizeBackward(dx, dGain, dOut, x Floats, n RMSNorm, q Quantization)

	// LinearQuantize writes Q(u) to out: planes of rows × channels that hold l's channels one after the other, each with a
	// Q of its own. Sign and MidRise quantize u, Unsigned quantizes relu(u)²: r = min(u², 4) rounded to float32 after each
	// operation where u > 0, otherwise 0. Unless derivative is the zero value, derivative receives the derivative of Q's
	// straight-through estimator, rows × l.Out. Mask, with Sign and MidRise: |u| <= PassLimit. Factors, with Unsigned: 2u
	// where 0 < u <= 2, and 0 elsewhere.
	LinearQuantize(out []Planes, derivative Derivative, x Activation, l Linear, shift KShift)
	// LinearAdd writes residual + u to out, or u where residual is nil. out may be residual.
	LinearAdd(out, residual Floats, x Activation, l Linear)
	// LinearBackward takes dy, the gradient of a linear's output or, with a derivative, of what LinearQuantize made of the
	// output: dy times Factors is one float32 product. It overwrites dx, rows × In, with the gradient of x, and adds to
	// the gradients of the parameters. The latent weight receives the gradient of the effective weight. dy is not
	// changed.
	LinearBackward(dx Floats, dl LinearGradient, dy Floats, derivative Derivative, x Activation, l Linear,
		shift KShift, gradBits GradBits)

	// Attend reads values. Queries, keys, values and out, which receives the attention output, are rows × Heads*HeadDim:
	// keys of Sign, the others of Sign or MidRise, out of no more bits than values. pointers receives the positions of the
	// survivors, best first, Batch × Heads × Seq × Survivors, and -1 where a query has fewer keys. A kind that reads all
	// keys points at the first key of the highest score.
	//
	// Where keys are weighted by rank, a query reads values.Unit() * Σ_b 2^b * SignedSum(weights, the bits of plane b by
	// rank), added in float32 from b = 0 on, and every device finds the same levels.
	Attend(out Planes, pointers Ints, queries, keys, values Planes, a Attention)
	// AttendBackward takes dOut, the gradient of the attention output, and the pointers that Attend wrote. It
	// overwrites dqkv, the gradients of queries, keys and values, rows × 3*Heads*HeadDim. All of dOut passes: what is read
	// lies within the PassLimit of out's quantization.
	AttendBackward(dqkv, dOut Floats, queries, keys, values Planes, pointers Ints, a Attention)

	// CrossEntropy writes the loss of each row in nats: -log softmax(u)[target] for the logits u of lmHead, and 0 where
	// the target is -1. The device decides how many logits exist at a time.
	CrossEntropy(losses Floats, x Activation, lmHead Linear, targets Ints)
	// CrossEntropyBackward writes the losses, too. Like LinearBackward, it overwrites dx and adds to the gradients of
	// lmHead's parameters: the gradients of GradScale * Σ losses.
	CrossEntropyBackward(losses, dx Floats, dl LinearGradient, x Activation, lmHead Linear, targets Ints,
		gradBits GradBits)

	// AdamW makes one update.
	AdamW(a Adam)
	// Muon applies one update to every matrix that u names.
	Muon(u Muon)
}
