// Package kernels declares the compute that the model is written over: a Device owns memory and runs a few coarse
// operations on it. kernels/cpu and kernels/cuda implement it. The package computes nothing itself and knows nothing of
// parameters' names, training schedules or files.
//
// # Order and errors
//
// Operations are enqueued and run in the order of the calls; a device may run them later. Download and Sync wait. The
// first failure sticks, and Sync and the downloads report it, so a step needs no check after every operation. Buffers
// are allocated up front and no operation allocates memory of its own once it has run with the same sizes, so that a
// step can be captured once and replayed. What changes from step to step (Scalars, tokens) lives in device memory.
//
// # Numbers
//
// Rows are tokens, batch first: row b*Seq + t. Matrices are row-major. Planes hold ±1 as bits (1 is +1); a value with n
// bits is (2.5 / 2^n) * Σ_b 2^b s_b over its planes s_b, or s_0 itself when n = 1. Products of planes are exact integers:
// with K columns and padding bits zero on both sides, x·w = K - 2 pop(x) - 2 pop(w) + 4 pop(x & w). They must be equal on
// every device, and so must every sign that follows from them: u = alpha*y - theta is one float32 multiplication and one
// float32 subtraction, never fused.
//
// # Gradients
//
// Gradients are float32 between operations or, in memory of NewBFloats, bfloat16: then an operation computes what it would have
// written to floats and rounds it, and the next one reads the rounded floats. Where a linear's are multiplied, GradBits says with what: 16 keeps floats;
// 2..8 rounds them, at random but without bias, to integers of so many bits, and the products become exact integers that
// must be equal on every device, given equal floats. With n = 2^(GradBits-1) - 1, the gradient g of the plain product
// y (masked by pass, then K-shift undone) is rounded twice:
//
//	for dx:      v = alpha_c * g     a scale for each row,      max_c |v| / n     dx = scale_t * Σ_c q * sign(W_c)
//	for weights: v = g               a scale for each channel,  max_t |v| / n     dWeight_c += alpha_c * scale_c * Σ_t q * x_t
//
//	q = floor(v * inverse + r)     inverse = n / max * (1 - 2^-22), so that |v * inverse| <= n; 0 where max < 1e-30
//
// alpha_c * g, max / n, n / max, its product with 1 - 2^-22, and v * inverse are each one float32 operation, rounded to nearest and never
// fused. The sum v * inverse + r is not rounded before its floor is taken. r is any of the multiples of 2^-32 in [0, 1), one as likely as
// the other: so the mean of q is v * inverse to within 2^-32, however small that is, and the mean of scale * q is v to within a factor of
// 1 - 2^-22 and float32's rounding. For row t and channel c, r is the same for dx and for weights, which are never multiplied with each
// other. Its 32 bits are word c%8/2 of philox.Block(philox.Key(Seed ^ RoundingSeed), {row*ceil(Out/8) + c/8, ID | Micro<<16, Step low,
// Step high}), the halves of the word exchanged where c is even: what comes first for one of the two channels of a word comes last for the
// other. row counts from 0 in each call.
//
// The sums over q are int32, with x_t as the integer Σ_b 2^b s_b behind its planes; a call with so many rows that they may not fit is
// refused (CheckSums: from 66,312 rows on where both have 8 bits). A product whose other
// side is floats (an unquantized stream, bonsai's mixed weights) stays a float product. dAlpha_c = scale_c * Σ_k w_ck * Σ_t q x_tk with
// the effective weight w; dTheta_c = -Σ_t of the masked gradient before K-shift is undone, in floats.
//
// # Documents
//
// A sequence may hold several documents, one after the other. Where Starts are given, Batch × Seq values, that of row b*Seq + t is
// the position in its sequence, from 0 to t, of the first token of t's document: none before it is read. Within a sequence starts never
// fall. What is computed of a document is then what would be computed of the document alone, in a sequence of its own. Nil Starts
// are zeros: all of a sequence is one document.
//
// # What is not an ordinary number
//
// Floats may be NaN, infinite, subnormal or -0. Operations treat them as IEEE 754 does, and none is replaced by another, but for a
// softmax's exponentials below 1e-37, which may be 0 or not. Which NaN a NaN is stays open. Beyond that:
//
//   - Bits cannot hold NaN. A sign is +1 where the value is at least 0: of -0 it is +1, of NaN -1. No gradient passes at NaN. Levels of NaN
//     are the lowest, and a row of x with NaN, whose rms is NaN, has no others; for signs only gain * x of the entry counts. The row's
//     gradient, from NormalizeBackward, is NaN.
//   - A row or channel of gradients to be rounded whose max is not finite has the scale NaN: all of that row of dx, all gradients of that
//     channel's weights and scale. The others stay what they are. What pass masks does not count.
//   - A loss is NaN where a logit of its row is NaN or +Inf, or all are -Inf, and with it the gradient of all its logits. A logit of -Inf is
//     that of an impossible token, whose loss as a target is +Inf. The gradient of logits is 0 in rows without a target, whatever they are.
//   - What depends on a gradient that is not finite is not finite after AttendBackward; other entries of the same sequence may be NaN then.
//
// So whatever goes wrong in a training step shows in the losses or in Σ gradient². Noise, which Attention may be given, has to be finite.
//
// Every operation is deterministic: equal inputs give equal bits, whatever the number of threads.
package kernels

import "errors"

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

// Planes is device memory for a matrix of quantized values, packed as bit planes.
type Planes interface {
	Rows() int
	Cols() int
	Quantization() Quantization
	Slice(from, to int) Planes // rows from..to-1; shares memory
}

// Activation is what a linear reads: planes, or float values where the stream is not quantized. Exactly one is set.
type Activation struct {
	Planes Planes // rows × In
	Floats Floats // rows*In values
}

// Linear is one binary linear, u = Alpha * (x · sign(Weight)ᵀ) - Theta, or several that read the same input, stacked by
// output channel.
type Linear struct {
	In, Out      int
	ID           uint16 // distinguishes the linears of a model: a counter of the random rounding of gradients
	Weight       Floats // latent, Out × In
	Signs        Planes // sign(Weight), kept by Binarize
	Mixed        Floats // bonsai's effective weight, kept by Binarize; nil once every weight is ±1
	Alpha, Theta Floats // Out each
}

// LinearGradient receives the gradients of a Linear's parameters. Those that are nil are not wanted; without Weight and Alpha
// no product is computed for them. Both of these are set, or neither.
type LinearGradient struct{ Weight, Alpha, Theta Floats }

// KShift makes output channels From..To-1 of a linear read an earlier token: their product becomes
// y[t-Offset], plus y[t] when Self; y before the start of t's document is 0. The zero value shifts nothing.
type KShift struct {
	From, To int
	Offset   int
	Self     bool
	Seq      int  // tokens per sequence
	Starts   Ints // of documents; may be nil
}

// RoundingSeed separates the random numbers of rounding from others of the same seed.
const RoundingSeed = 0x524f_554e_4449_4e47

// Scalars are the values that change from step to step. Operations read them when they run.
type Scalars struct {
	Seed, Step   uint64  // counters of the Gumbel noise and of the rounding of gradients
	Micro        uint32  // micro-batch within the step, below 2^16, a counter of the noise and of rounding
	Gamma        float64 // weight of rank r is proportional to Gamma^r
	Tau          float64 // temperature of Pointer's backward
	Mix          float64 // bonsai: 0 latent, 1 sign
	GradScale    float64 // factor on the gradient of every token's loss: 1 / number of targets in the step
	LearningRate float64
	Correction1  float64 // 1 - Beta1^n at the n-th update, from 1
	Correction2  float64 // 1 - Beta2^n
}

// Adam describes one AdamW update of equally long buffers.
type Adam struct {
	Param, Grad, M, V Floats
	Master            Floats // if set, it is updated, and Param becomes Master rounded to float16
	Beta1, Beta2, Eps float64
	Decay             float64 // decoupled weight decay
	SquaredNorm       Floats  // 1 value: Σ gradient² over all parameters; nil: no clipping
	MaxNorm           float64 // gradients are scaled by min(1, MaxNorm / (sqrt(SquaredNorm) + 1e-6))
}

// Reader copies memory to the host while its device goes on. It serves one goroutine, which need not be the device's.
type Reader interface {
	// Read waits for what was enqueued before the reader was made, and copies len(dst) values from the start of src, which no
	// operation enqueued since then may write.
	Read(dst []float32, src Floats) error
}

// ErrMemory is what errors of memory that does not fit a device wrap.
var ErrMemory = errors.New("out of device memory")

// DryRunner is a Device of limited memory that can tell how much of it the same calls would take.
type DryRunner interface {
	Device
	// Room is how many bytes there are for buffers and working memory: those that are free, and those that this device holds.
	Room() (int, error)
	// DryRun calls f with a device that allocates, computes and copies nothing, and returns the bytes of device memory
	// that f's calls would have taken.
	DryRun(f func(Device) error) (bytes int, err error)
}

// Device owns memory and computes on it. A Device serves one goroutine at a time.
type Device interface {
	Name() string

	// NewFloats, NewBFloats, NewInts and NewPlanes return zeroed memory, or an error that names the size that was asked for.
	NewFloats(n int) (Floats, error)
	// NewBFloats returns memory that keeps bfloat16: what is written is rounded to nearest, ties to even. It may be LinearBackward's dx
	// and dy, the dx of CrossEntropyBackward and EmbedBackward, and, both or neither, dx and dOut of NormalizeBackward and dqkv and dOut
	// of AttendBackward, which, where all keys are read, need only be within 1e-3 of the norm of what rounding would have left; it can be
	// cleared, uploaded and downloaded. In any other place it is a failure.
	NewBFloats(n int) (Floats, error)
	NewInts(n int) (Ints, error)
	NewPlanes(rows, cols int, q Quantization) (Planes, error)

	// Upload and UploadInts copy len(src) values to the start of dst. src may be reused at once.
	Upload(dst Floats, src []float32)
	UploadInts(dst Ints, src []int32)
	// SetScalars replaces the scalars for the operations enqueued, or replayed, from here on.
	SetScalars(s Scalars)

	// Download and DownloadInts wait, then copy len(dst) values from the start of src.
	Download(dst []float32, src Floats) error
	DownloadInts(dst []int32, src Ints) error
	// DownloadPlanes copies rows × bits × ceil(cols/64) words, least significant bit first, padding bits zero.
	DownloadPlanes(dst []uint64, src Planes) error
	// NewReader returns what downloads beside operations that are enqueued later; the one before it ends.
	NewReader() (Reader, error)
	// Sync waits for everything enqueued and reports the first failure since the device was made.
	Sync() error

	// Capture records what enqueue enqueues, without running it, and returns what runs it. It records no copies between
	// host and device. A device without graphs returns enqueue itself.
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

	// Binarize refreshes l.Signs, and l.Mixed = (1-Mix) * W / mean|W_row| + Mix * sign(W) if there is one.
	Binarize(l Linear)

	// Embed writes row tokens[i] of codebook's effective weight to x, len(tokens) × In.
	Embed(x Floats, tokens Ints, codebook Linear)
	// EmbedBackward adds dx's rows to the rows of dWeight that tokens name.
	EmbedBackward(dWeight, dx Floats, tokens Ints, width int)

	// Normalize writes Q(gain * x / rms(x)) of x's rows to out; Q is what out can hold: signs, levels or floats.
	Normalize(out Activation, x, gain Floats, eps float64)
	// NormalizeBackward adds to dx and dGain, for the gradient dOut of Normalize's output, which was quantized to q. Products of gain,
	// x and dOut have to stay within the range of float32.
	NormalizeBackward(dx, dGain, dOut, x, gain Floats, eps float64, q Quantization)

	// LinearSigns writes sign(u), sign(0) = +1, to out, and |u| <= 1 to pass unless that is nil.
	LinearSigns(out, pass Planes, x Activation, l Linear, shift KShift)
	// LinearAdd writes residual + u to out, or u where residual is nil. out may be residual.
	LinearAdd(out, residual Floats, x Activation, l Linear)
	// LinearBackward takes the gradient dy of a linear's output (of its sign, if pass is given: it then counts where pass
	// is set). It overwrites dx, rows × In, with the gradient of x and adds to the gradients of the parameters; the latent
	// receives the gradient of the effective weight. dy stays as it is. gradBits is 2..8 or FloatBits.
	LinearBackward(dx Floats, dl LinearGradient, dy Floats, pass Planes, x Activation, l Linear, shift KShift, gradBits int)

	// Attend reads values: qkv is rows × 3*Heads*HeadDim signs of all queries, keys and values. out gets the signs of what
	// is read, rows × Heads*HeadDim; pointers the keys' positions, Batch × Heads × Seq × Survivors, best first, -1 where
	// a query has fewer keys. Softmax's one pointer is the first key of the highest score.
	Attend(out Planes, pointers Ints, qkv Planes, a Attention)
	// AttendBackward overwrites dqkv, rows × 3*Heads*HeadDim, given the gradient of what is read and the pointers that Attend left.
	AttendBackward(dqkv, dOut Floats, qkv Planes, pointers Ints, a Attention)

	// CrossEntropy writes each row's loss in nats, -log softmax(u)[target] of the logits u = lmHead(x); 0 where the target is
	// -1. No more logits exist at a time than the device finds good.
	CrossEntropy(losses Floats, x Activation, lmHead Linear, targets Ints)
	// CrossEntropyBackward does the same and, as LinearBackward for the gradient of GradScale * Σ losses, overwrites dx
	// and adds to the gradients of lmHead's parameters.
	CrossEntropyBackward(losses, dx Floats, dl LinearGradient, x Activation, lmHead Linear, targets Ints, gradBits int)

	// AdamW applies one update.
	AdamW(a Adam)
}
