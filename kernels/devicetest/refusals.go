package devicetest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"bitnet1/kernels"
)

// refusal is a call with arguments that do not fit, and words of the failure that follows.
type refusal struct {
	operation string
	words     string
	call      func(b *bench)
}

// refusals holds at least one call of every operation of a device.
func refusals() []refusal {
	floats := func(b *bench, n int) kernels.Floats { return b.floats(make([]float32, n)) }
	ints := func(b *bench, n int) kernels.Ints { return b.ints(make([]int32, n)) }
	norm := func(b *bench) kernels.RMSNorm { return kernels.RMSNorm{Gain: floats(b, 4), Eps: eps} }
	x := func(b *bench) kernels.Activation { return kernels.Activation{Planes: b.signs(4, 6)} }
	attention := func(b *bench, change func(a *kernels.Attention)) {
		a := kernels.Attention{Kind: kernels.RWSP, Batch: 1, Seq: 4, Heads: 2, HeadDim: 3, Survivors: 2}
		change(&a)
		b.d.Attend(b.signs(4, 6), ints(b, 16), b.signs(4, 6), b.signs(4, 6), b.signs(4, 6), a)
	}
	backward := func(b *bench, dl kernels.LinearGradient, gradBits kernels.GradBits) {
		b.d.LinearBackward(floats(b, 24), dl, floats(b, 20), passes, x(b), b.plainLinear(6, 5).Linear, kernels.KShift{},
			gradBits)
	}
	derive := func(b *bench, derivative kernels.Derivative) {
		b.d.LinearBackward(floats(b, 24), kernels.LinearGradient{}, floats(b, 20), derivative, x(b),
			b.plainLinear(6, 5).Linear, kernels.KShift{}, roundedTo(4, 4))
	}
	signs := func(b *bench, cols int, s kernels.KShift) {
		b.d.LinearQuantize([]kernels.Planes{b.signs(4, cols)}, kernels.Derivative{}, x(b), b.plainLinear(6, 5).Linear, s)
	}
	quantize := func(b *bench, derivative kernels.Derivative, list ...outputs) {
		var out []kernels.Planes
		for _, o := range list {
			out = append(out, b.planesFor(o, 4)...)
		}
		b.d.LinearQuantize(out, derivative, x(b), b.plainLinear(6, 5).Linear, kernels.KShift{})
	}
	return []refusal{
		{"Upload", "dst has 2 values, want 3", func(b *bench) { b.d.Upload(floats(b, 2), make([]float32, 3)) }},
		{"UploadInts", "dst has 2 values, want 3", func(b *bench) { b.d.UploadInts(ints(b, 2), make([]int32, 3)) }},
		{"Download", "src has 2 values, want 3", func(b *bench) { _ = b.d.Download(make([]float32, 3), floats(b, 2)) }},
		{"DownloadInts", "src has 2 values, want 3",
			func(b *bench) { _ = b.d.DownloadInts(make([]int32, 3), ints(b, 2)) }},
		{"DownloadPlanes", "dst has 3 words, want 4",
			func(b *bench) { _ = b.d.DownloadPlanes(make([]uint64, 3), b.signs(2, 65)) }},
		{"Zero", "x is missing", func(b *bench) { b.d.Zero(nil) }},
		{"Copy", "dst has 2 values, want 3", func(b *bench) { b.d.Copy(floats(b, 2), floats(b, 3)) }},
		{"Copy", "src is bfloat16", func(b *bench) { b.d.Copy(floats(b, 2), b.bfloats(make([]float32, 2))) }},
		{"AddSum", "x is bfloat16, want float32",
			func(b *bench) { b.d.AddSum(floats(b, 1), b.bfloats(make([]float32, 2))) }},
		{"AddSumSquares", "dst has 0 values, want 1", func(b *bench) { b.d.AddSumSquares(floats(b, 0), floats(b, 3)) }},
		{"ZeroLongs", "x is missing", func(b *bench) { b.d.ZeroLongs(nil) }},
		{"AddFixed", "the sums has 2 values, want 3",
			func(b *bench) { b.d.AddFixed(b.fixedSums(2, 40), floats(b, 3)) }},
		{"AddFixed", "x is bfloat16, want float32",
			func(b *bench) { b.d.AddFixed(b.fixedSums(2, 40), b.bfloats(make([]float32, 2))) }},
		{"AddFixed", "sums in units of 2^-56: want 0 to 55",
			func(b *bench) { b.d.AddFixed(b.fixedSums(2, 56), floats(b, 2)) }},
		{"SetFixed", "the sums has 2 values, want 3",
			func(b *bench) { b.d.SetFixed(b.fixedSums(2, 40), floats(b, 3)) }},
		{"ReadFixed", "the overflow has 0 values, want 1", func(b *bench) {
			sums := b.fixedSums(2, 40)
			sums.Overflow = sums.Overflow.Slice(0, 0)
			b.d.ReadFixed(floats(b, 2), sums)
		}},
		{"Quantize", "the quantized weights is 2 × 4 signs, want 2 × 3 signs", func(b *bench) {
			b.d.Quantize(kernels.Linear{In: 3, Out: 2, Weight: floats(b, 6), Quantized: b.signs(2, 4)})
		}},
		{"Quantize", "the linear's weights are of 4-bit mid-rise levels: want signs or levels of a normal", func(b *bench) {
			b.d.Quantize(kernels.Linear{In: 3, Out: 2, Weight: floats(b, 6), Quantized: b.planes(2, 3, kernels.MidRise(4))})
		}},
		{"Quantize", "the linear's mixed weights has 5 values, want 6", func(b *bench) {
			b.d.Quantize(kernels.Linear{In: 3, Out: 2, Weight: floats(b, 6), Quantized: b.planes(2, 3, kernels.Normal(4)),
				Mixed: floats(b, 5)})
		}},
		{"Embed", "x has 5 values, want 6", func(b *bench) {
			b.d.Embed(floats(b, 5), ints(b, 2), b.plainLinear(3, 4).Linear)
		}},
		{"Embed", "the token of row 1 is outside the vocabulary", func(b *bench) {
			b.d.Embed(floats(b, 6), b.ints([]int32{3, 4}), b.plainLinear(3, 4).Linear)
		}},
		{"EmbedBackward", "dx has 5 values, want 6",
			func(b *bench) { b.d.EmbedBackward(floats(b, 12), floats(b, 5), ints(b, 2), 3) }},
		{"Normalize", "out has 3 rows, want 2", func(b *bench) {
			b.d.Normalize(kernels.Activation{Planes: b.signs(3, 4)}, floats(b, 8), norm(b))
		}},
		{"Normalize", "x has 7 values: they are no whole rows of 4", func(b *bench) {
			b.d.Normalize(kernels.Activation{Floats: floats(b, 8)}, floats(b, 7), norm(b))
		}},
		{"Normalize", "a rotation of blocks of 8 in rows of 4 values: want 0, or a power of two that divides 4",
			func(b *bench) {
				n := norm(b)
				n.Rotation = 8
				b.d.Normalize(kernels.Activation{Planes: b.signs(2, 4)}, floats(b, 8), n)
			}},
		{"NormalizeBackward", "a rotation of blocks of 3 in rows of 4 values", func(b *bench) {
			n := norm(b)
			n.Rotation = 3
			b.d.NormalizeBackward(floats(b, 8), floats(b, 4), floats(b, 8), floats(b, 8), n, kernels.Sign())
		}},
		{"NormalizeBackward", "want one type", func(b *bench) {
			b.d.NormalizeBackward(floats(b, 8), floats(b, 4), b.bfloats(make([]float32, 8)), floats(b, 8), norm(b),
				kernels.Sign())
		}},
		{"NormalizeBackward", "9 bits", func(b *bench) {
			b.d.NormalizeBackward(floats(b, 8), floats(b, 4), floats(b, 8), floats(b, 8), norm(b),
				kernels.MidRise(9))
		}},
		{"LinearQuantize", "out has 6 channels in all, want 5", func(b *bench) { signs(b, 6, kernels.KShift{}) }},
		{"LinearQuantize", "4 rows are no whole sequences of 3",
			func(b *bench) { signs(b, 5, kernels.KShift{To: 2, Offset: 1, Seq: 3}) }},
		{"LinearQuantize", "K-shift of channels 0 to 6 of 5",
			func(b *bench) { signs(b, 5, kernels.KShift{To: 6, Offset: 1, Seq: 4}) }},
		{"LinearQuantize", "out has 4 channels in all, want 5", func(b *bench) {
			quantize(b, kernels.Derivative{}, outputs{{1, kernels.Sign()}, {3, kernels.MidRise(4)}})
		}},
		{"LinearQuantize", "out[1] is missing", func(b *bench) {
			b.d.LinearQuantize([]kernels.Planes{b.signs(4, 3), nil}, kernels.Derivative{}, x(b), b.plainLinear(6, 5).Linear,
				kernels.KShift{})
		}},
		{"LinearQuantize", "out[0] is 3 × 5 signs, want 4 × 5 signs", func(b *bench) {
			b.d.LinearQuantize([]kernels.Planes{b.signs(3, 5)}, kernels.Derivative{}, x(b), b.plainLinear(6, 5).Linear,
				kernels.KShift{})
		}},
		{"LinearQuantize", "out[0] is of 2-bit levels of a normal: want signs, mid-rise levels or unsigned levels",
			func(b *bench) { quantize(b, kernels.Derivative{}, outputs{{5, kernels.Normal(2)}}) }},
		{"LinearQuantize", "out[1] is of 4-bit unsigned levels: its derivative is a mask where bits mean ±1", func(b *bench) {
			quantize(b, kernels.Derivative{Mask: b.signs(4, 5)}, outputs{{1, kernels.Sign()}, {4, kernels.Unsigned(4)}})
		}},
		{"LinearQuantize", "out[0] is of signs: its derivative is a mask where bits mean ±1, and otherwise factors",
			func(b *bench) { quantize(b, kernels.Derivative{Factors: floats(b, 20)}, outputs{{5, kernels.Sign()}}) }},
		{"LinearQuantize", "mask is 4 × 6 signs, want 4 × 5 signs",
			func(b *bench) { quantize(b, kernels.Derivative{Mask: b.signs(4, 6)}, outputs{{5, kernels.Sign()}}) }},
		{"LinearQuantize", "factors has 19 values, want 20", func(b *bench) {
			quantize(b, kernels.Derivative{Factors: floats(b, 19)}, outputs{{5, kernels.Unsigned(4)}})
		}},
		{"LinearAdd", "x has rows of 6 values, want 7",
			func(b *bench) { b.d.LinearAdd(floats(b, 20), nil, x(b), b.plainLinear(7, 5).Linear) }},
		{"LinearAdd", "x must be planes or floats", func(b *bench) {
			b.d.LinearAdd(floats(b, 20), nil, kernels.Activation{}, b.plainLinear(6, 5).Linear)
		}},
		{"LinearAdd", "residual has 19 values, want 20",
			func(b *bench) { b.d.LinearAdd(floats(b, 20), floats(b, 19), x(b), b.plainLinear(6, 5).Linear) }},
		{"LinearBackward", "gradients of 9 bits", func(b *bench) { backward(b, kernels.LinearGradient{}, roundedTo(9, 4)) }},
		{"LinearBackward", "gradients of 1 bits", func(b *bench) { backward(b, kernels.LinearGradient{}, roundedTo(4, 1)) }},
		{"LinearBackward", "gradients of 4 bits for inputs and of 16 for weights: want 16, floats, for both or neither",
			func(b *bench) { backward(b, kernels.LinearGradient{}, roundedTo(4, 16)) }},
		{"LinearBackward", "gradients of 16 bits for inputs and of 8 for weights",
			func(b *bench) { backward(b, kernels.LinearGradient{}, roundedTo(16, 8)) }},
		{"LinearBackward", "wanted together", func(b *bench) {
			backward(b, kernels.LinearGradient{Alpha: floats(b, 5)}, roundedTo(4, 4))
		}},
		{"LinearBackward", "a derivative is a mask or factors, not both", func(b *bench) {
			derive(b, kernels.Derivative{Mask: b.signs(4, 5), Factors: floats(b, 20)})
		}},
		{"LinearBackward", "factors has 19 values, want 20",
			func(b *bench) { derive(b, kernels.Derivative{Factors: floats(b, 19)}) }},
		{"LinearBackward", "mask is 4 × 5 4-bit unsigned levels, want 4 × 5 signs", func(b *bench) {
			derive(b, kernels.Derivative{Mask: b.planes(4, 5, kernels.Unsigned(4))})
		}},
		{"LinearBackward", "sums over 66312 channels of 8-bit gradients and 8-bit levels of a normal may pass 32 bits: " +
			"want at most 66311 channels", func(b *bench) {
			const out = 66312
			l := kernels.Linear{In: 1, Out: out, Quantized: b.planes(out, 1, kernels.Normal(8)), Alpha: floats(b, out),
				Theta: floats(b, out)}
			x := kernels.Activation{Planes: b.signs(1, 1)}
			b.d.LinearBackward(floats(b, 1), kernels.LinearGradient{}, floats(b, out), passes, x, l, kernels.KShift{},
				roundedTo(8, 2))
		}},
		{"LinearBackward", "sums over 66312 rows of 8-bit gradients and 8-bit mid-rise levels may pass 32 bits: " +
			"want at most 66311 rows: use a smaller micro-batch", func(b *bench) {
			const rows = 66312
			l, dl := b.plainLinear(1, 1), kernels.LinearGradient{Weight: floats(b, 1), Alpha: floats(b, 1)}
			x := kernels.Activation{Planes: b.planes(rows, 1, kernels.MidRise(8))}
			b.d.LinearBackward(floats(b, rows), dl, floats(b, rows), passes, x, l.Linear, kernels.KShift{}, roundedTo(2, 8))
		}},
		{"Attend", "attention of kind 77: want one of [softmax pointer rwsp",
			func(b *bench) { attention(b, func(a *kernels.Attention) { a.Kind = 77 }) }},
		{"Attend", "attention of kind -1", func(b *bench) { attention(b, func(a *kernels.Attention) { a.Kind = -1 }) }},
		{"Attend", "2 survivors, want 1 to 1 with pointer attention",
			func(b *bench) { attention(b, func(a *kernels.Attention) { a.Kind = kernels.Pointer }) }},
		{"Attend", "17 survivors, want 1 to 16",
			func(b *bench) { attention(b, func(a *kernels.Attention) { a.Survivors = 17 }) }},
		{"Attend", "pointers has 16 values, want 24",
			func(b *bench) { attention(b, func(a *kernels.Attention) { a.Survivors = 3 }) }},
		{"Attend", "queries is 4 × 6 signs, want 4 × 8 signs",
			func(b *bench) { attention(b, func(a *kernels.Attention) { a.HeadDim = 4 }) }},
		{"Attend", "starts has 3 values, want 4",
			func(b *bench) { attention(b, func(a *kernels.Attention) { a.Starts = ints(b, 3) }) }},
		{"Attend", "values is of 2-bit unsigned levels: want signs or mid-rise levels", func(b *bench) {
			a := kernels.Attention{Kind: kernels.RWSP, Batch: 1, Seq: 4, Heads: 2, HeadDim: 3, Survivors: 2}
			b.d.Attend(b.signs(4, 6), ints(b, 16), b.signs(4, 6), b.signs(4, 6),
				b.planesFor(outputs{{6, kernels.Unsigned(2)}}, 4)[0], a)
		}},
		{"Attend", "out has 4-bit mid-rise levels and values 3-bit mid-rise levels: want no more bits", func(b *bench) {
			a := kernels.Attention{Kind: kernels.RWSP, Batch: 1, Seq: 4, Heads: 2, HeadDim: 3, Survivors: 2}
			b.d.Attend(b.activation(4, 6, 4).Planes, ints(b, 16), b.signs(4, 6), b.signs(4, 6), b.activation(4, 6, 3).Planes, a)
		}},
		{"Attend", "queries is of 2-bit unsigned levels: want signs or mid-rise levels", func(b *bench) {
			a := kernels.Attention{Kind: kernels.RWSP, Batch: 1, Seq: 4, Heads: 2, HeadDim: 3, Survivors: 2}
			b.d.Attend(b.signs(4, 6), ints(b, 16), b.planesFor(outputs{{6, kernels.Unsigned(2)}}, 4)[0], b.signs(4, 6),
				b.signs(4, 6), a)
		}},
		{"Attend", "keys is 4 × 6 2-bit mid-rise levels, want 4 × 6 signs", func(b *bench) {
			a := kernels.Attention{Kind: kernels.RWSP, Batch: 1, Seq: 4, Heads: 2, HeadDim: 3, Survivors: 2}
			b.d.Attend(b.signs(4, 6), ints(b, 16), b.signs(4, 6), b.activation(4, 6, 2).Planes, b.signs(4, 6), a)
		}},
		{"AttendBackward", "values is 4 × 7 signs, want 4 × 6 signs", func(b *bench) {
			a := kernels.Attention{Kind: kernels.RWSP, Batch: 1, Seq: 4, Heads: 2, HeadDim: 3, Survivors: 1}
			b.d.AttendBackward(floats(b, 72), floats(b, 24), b.signs(4, 6), b.signs(4, 6), b.signs(4, 7), ints(b, 8), a)
		}},
		{"AttendBackward", "attention of kind 77", func(b *bench) {
			a := kernels.Attention{Kind: 77, Batch: 1, Seq: 4, Heads: 2, HeadDim: 3, Survivors: 1}
			b.d.AttendBackward(floats(b, 72), floats(b, 24), b.signs(4, 6), b.signs(4, 6), b.signs(4, 6), ints(b, 8), a)
		}},
		{"CrossEntropy", "targets has 3 values, want 4",
			func(b *bench) { b.d.CrossEntropy(floats(b, 4), x(b), b.plainLinear(6, 5).Linear, ints(b, 3)) }},
		{"CrossEntropyBackward", "dx has 23 values, want 24", func(b *bench) {
			b.d.CrossEntropyBackward(floats(b, 4), floats(b, 23), kernels.LinearGradient{}, x(b),
				b.plainLinear(6, 5).Linear, ints(b, 4), roundedTo(4, 4))
		}},
		{"AdamW", "V has 2 values, want 3", func(b *bench) {
			b.d.AdamW(kernels.Adam{Param: floats(b, 3), Grad: floats(b, 3), M: floats(b, 3), V: floats(b, 2)})
		}},
		{"Muon", "the momentum has 7 values, want 8", func(b *bench) {
			b.d.Muon(kernels.Muon{Param: floats(b, 8), Grad: floats(b, 8), Momentum: floats(b, 7), At: []int{0, 4}, Rows: 2,
				Cols: 2, Steps: 1})
		}},
		{"Muon", "2 × 2, 0 steps of the iteration", func(b *bench) {
			b.d.Muon(kernels.Muon{Param: floats(b, 4), Grad: floats(b, 4), Momentum: floats(b, 4), At: []int{0}, Rows: 2,
				Cols: 2})
		}},
	}
}

// Every operation refuses what does not fit, with the words of the contract: its name, the argument and what is wanted.
func testRefusals(t *testing.T, open func(t testing.TB) kernels.Device) {
	tried := map[string]bool{ // these take no memory
		"Name": true, "NewFloats": true, "NewBFloats": true, "NewInts": true, "NewLongs": true, "NewPlanes": true,
		"SetScalars": true, "NewReader": true,
		"Sync": true, "Capture": true, "Close": true,
	}
	for i, r := range refusals() {
		tried[r.operation] = true
		t.Run(fmt.Sprintf("%s/%d", r.operation, i), func(t *testing.T) {
			b := &bench{t: t, d: open(t), r: rand.New(rand.NewPCG(1, 2))}
			r.call(b)
			if err := b.d.Sync(); err == nil || !strings.Contains(err.Error(), r.operation+": ") ||
				!strings.Contains(err.Error(), r.words) {
				t.Errorf("the device says %v, want %s: … %s", err, r.operation, r.words)
			}
		})
	}
	device := reflect.TypeFor[kernels.Device]()
	for i := range device.NumMethod() {
		if name := device.Method(i).Name; !tried[name] {
			t.Errorf("no call of %s is tried that a device must refuse", name)
		}
	}
}
