// Package kernels declares the compute that the model is written over. A Device owns memory and runs a few coarse
// operations on it: products of bit planes, normalization, attention, the loss, the optimizer. kernels/cpu and
// kernels/cuda implement it, and kernels/devicetest is the test that both pass. The package itself computes nothing but
// the arithmetic that all devices share: Quantization, AttentionRule, and the check of every operation's arguments.
//
// It knows nothing of parameters' names, training schedules or files.
//
// # Order and errors
//
// Operations are enqueued, and they run in the order of the calls, perhaps later. Download and Sync wait. The first
// failure sticks: later operations do nothing, and Sync and the downloads report it. So a step needs no check after
// every operation.
//
// Buffers are allocated up front. An operation that has run once allocates nothing when it runs with the same sizes
// again, so that a device can record a step (Capture) and replay it. What changes from step to step, Scalars and
// tokens, lies in device memory.
//
// # Numbers
//
// Matrices are row-major. Rows are tokens, batch first: row b*Seq + t is token t of sequence b. Planes hold quantized
// values as bits (see Quantization). With K columns, and padding bits that are zero on both sides, the product of two
// planes of ±1 is
//
//	x·w = K - 2 pop(x) - 2 pop(w) + 4 pop(x & w)     pop counts bits, 1 is +1
//
// and that of a plane x of {0,1} and a plane w of ±1 is 2 pop(x & w) - pop(x). A product of several planes on one side
// or both is the sum of the products of any two, times 2^(a+b) for plane a of x and plane b of w.
//
// Products of planes are exact integers n. They must be equal on every device, and so must every bit that follows from
// them: y = unit * float32(n), with unit = x.Unit() * w.Unit() in float32, and u = alpha*y - theta are one float32
// operation each, rounded to nearest and never fused.
//
// # Gradients
//
// Between operations, gradients are float32 or, in memory of NewBFloats, bfloat16. An operation that writes bfloat16
// computes what it would have written as float32 and rounds it. An operation that reads bfloat16 reads the rounded
// values.
//
// Where a linear multiplies gradients, GradBits says with what: FloatBits keeps floats, and 2 to 8 rounds the gradients
// to integers of so many bits, at random but without bias. The products then are exact integers, which must be equal on
// every device if the floats are. Let g be the gradient of the plain product y: with the derivative applied and K-shift
// undone. g is rounded twice, with an n of its own each time:
//
//	for dx:      v = alpha_c * g   a scale for each row,     max_c |v| / n   dx = scale_t * Σ_c q * Q(W_c)
//	for weights: v = g             a scale for each channel, max_t |v| / n   dWeight_c += alpha_c * scale_c * Σ_t q * x_t
//
//	q = floor(v * inverse + r)       inverse = n / max * (1 - 2^-22), or 0 where max < 1e-30
//	n = 2^(bits-1) - 1               bits = GradBits.Input for dx, GradBits.Weight for weights
//
// alpha_c * g, max / n, n / max, the product with 1 - 2^-22, and v * inverse are one float32 operation each, rounded to
// nearest and never fused. The factor 1 - 2^-22 keeps |v * inverse| <= n. The sum v * inverse + r is not rounded before
// floor is taken.
//
// r is a random multiple of 2^-32 in [0, 1), and all multiples are equally likely. So the mean of q differs from v *
// inverse by less than 2^-32, and the mean of scale * q is v up to a factor of 1 - 2^-22 and float32's rounding. r is
// the same for dx and for weights, which are never multiplied with each other. For row t and channel c, its 32 bits are
// word c%8/2 of
//
//	philox.Block(philox.Key(Seed ^ RoundingSeed), {t*ceil(Out/8) + c/8, ID | Micro<<16, Step low, Step high})
//
// with its upper and lower 16 bits exchanged where c is even: two channels share a word, and each has other bits first.
// t counts from 0 in each call.
//
// The sums over q are int32, with the integers behind x_t and Q(W_c) (see Quantization); units are multiplied into
// scales, in float32. A call with so many rows or channels that a sum may not fit is refused: see CheckSums. Where the
// other side of a product is floats (an unquantized stream, bonsai's mixed weights) the product stays one of floats.
// dAlpha_c = scale_c * Σ_k w_ck * Σ_t q x_tk with the effective weight w. dTheta_c is minus the sum over t of the
// gradient with the derivative applied, in floats, before K-shift is undone.
//
// # Documents
//
// A sequence may hold several documents, one after the other. Starts, where they are given, are Batch × Seq values:
// that of row b*Seq + t is the position, from 0 to t, of the first token of t's document. No earlier token is read.
// Within a sequence starts never fall. The results of a document then are those of the document alone, in a sequence of
// its own. Without Starts, a sequence is one document.
//
// # What is not an ordinary number
//
// Floats may be NaN, infinite, subnormal or -0. Operations treat them as IEEE 754 does. The one exception is a softmax,
// where exponentials below 1e-37 may be 0. Which of the NaNs a NaN is stays open. Beyond that:
//
//   - Bits cannot hold NaN. The sign of a value is +1 where the value is at least 0, so that of -0 is +1 and that of
//     NaN is -1. The gradient of NaN does not pass. NaN has the lowest level. A row of Normalize with NaN has the root
//     mean square NaN, so all its values have the lowest level and its gradient is NaN; where only signs are kept, the
//     product of gain and x of each value counts.
//   - A row of weights with NaN that is quantized to levels has the lowest level throughout. In a row whose mean square
//     is infinite, infinities have the lowest level, and all other weights have the level of 0.
//   - Factors of a derivative are multiplied: a gradient that is not finite is not finite after it, even where the
//     factor is 0.
//   - A row or channel of gradients to be rounded whose max is not finite has the scale NaN: all of that row of dx, or
//     all gradients of that channel's weights and alpha, are NaN. Other rows and channels are not affected. Gradients
//     that pass masks do not count.
//   - A loss is NaN where a logit of its row is NaN or +Inf, or where all are -Inf; so is the gradient of that row's
//     logits. A logit of -Inf is that of an impossible token, and the loss of an impossible target is +Inf. In a row
//     without a target the gradient of all logits is 0, whatever the logits are.
//   - What depends on a gradient that is not finite is not finite after AttendBackward. Other entries of the same
//     sequence may be NaN as well.
//
// So whatever goes wrong in a training step shows in the losses or in Σ gradient². Noise given to Attention has to be
// finite.
//
// Every operation is deterministic: equal inputs give equal bits, whatever the number of threads.
package kernels
