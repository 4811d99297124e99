package devicetest

import (
	"math"
	"strings"

	"bitnet1/kernels"
)

func testMemory(b *bench) {
	x, err := b.d.NewFloats(1000)
	b.must(err)
	same(b.t, "fresh floats", b.download(x), make([]float32, 1000), 1000)
	values := b.normals(1000)
	b.d.Upload(x, values)
	part := x.Slice(100, 400)
	b.d.Zero(part.Slice(50, 60))
	for i := 150; i < 160; i++ {
		values[i] = 0
	}
	same(b.t, "floats after Zero of a slice", b.download(x), values, 1000)
	n := b.ints([]int32{1, -2, 3, 4})
	b.d.UploadInts(n.Slice(1, 3), []int32{7, 8})
	got := make([]int32, 4)
	b.must(b.d.DownloadInts(got, n))
	same(b.t, "ints", got, []int32{1, 7, 8, 4}, 4)
	b.d.Copy(x.Slice(500, 1000), part)
	copy(values[500:], values[100:400])
	same(b.t, "floats after Copy", b.download(x), values, 1000)
	whole := b.activation(37, 130, 3)
	all := b.integers(whole.Planes)
	same(b.t, "rows of planes", b.integers(whole.Planes.Slice(5, 20)), all[5*130:20*130], 130)
	if _, err := b.d.NewFloats(-1); err == nil {
		b.t.Error("-1 floats were allocated")
	}
	if _, err := b.d.NewPlanes(1, 1, kernels.MidRise(9)); err == nil {
		b.t.Error("planes of 9 bits were allocated")
	}
}

// A reader on another goroutine sees what was enqueued before the reader was made, while other memory changes.
func testReader(b *bench) {
	const n = 3 << 20 // more than one piece, however a device divides it
	first, second := b.normals(n), b.normals(n)
	x, kept := b.floats(first), b.poisoned(n)
	b.d.Copy(kept, x)
	reader, err := b.d.NewReader()
	b.must(err)
	b.d.Upload(x, second)
	got, part := make([]float32, n), make([]float32, 100)
	read := make(chan error)
	go func() {
		err := reader.Read(got, kept)
		if err == nil {
			err = reader.Read(part, kept.Slice(77, n))
		}
		read <- err
	}()
	for range 20 {
		b.d.Zero(x)
	}
	b.must(<-read)
	same(b.t, "floats beside operations", got, first, n)
	same(b.t, "a slice beside operations", part, first[77:177], 100)
	same(b.t, "floats that operations changed", b.download(x.Slice(0, 10)), make([]float32, 10), 10)
	if reader.Read(make([]float32, n+1), kept) == nil {
		b.t.Error("more values were read than there are")
	}
}

func testSums(b *bench) {
	for _, n := range []int{1, 37, 5000, 300001} {
		x := b.normals(n)
		var sum, size, squares float64
		for _, v := range x {
			sum += float64(v)
			size += math.Abs(float64(v))
			squares += float64(v) * float64(v)
		}
		dst := b.floats([]float32{3, 4})
		b.d.AddSum(dst, b.floats(x))
		b.d.AddSumSquares(dst.Slice(1, 2), b.floats(x))
		near(b.t, "sums", b.download(dst), []float64{3 + sum, 4 + squares}, []float64{3 + size, 4 + squares}, 1e-6, 2)
	}
}

// A token outside the vocabulary is a failure that sticks and names the operation.
func testFailure(b *bench) {
	table := b.newLinear(8, 4, 1)
	b.d.Embed(b.poisoned(300*8), b.ints(append(make([]int32, 299), 4)), table.Linear)
	if err := b.d.Sync(); err == nil || !strings.Contains(err.Error(), "Embed") {
		b.t.Fatalf("a token outside the table gave %v", err)
	}
	x, err := b.d.NewFloats(1)
	if err != nil {
		b.t.Fatal(err)
	}
	b.d.Zero(x)
	if b.d.Sync() == nil {
		b.t.Error("a later operation hid the failure")
	}
}

// Captured operations run when they are replayed, with the scalars and the memory of that time.
func testCapture(b *bench) {
	const n = 700
	param, grad := b.normals(n), b.normals(n)
	state := func() kernels.Adam {
		return kernels.Adam{Param: b.floats(param), Grad: b.floats(grad), M: b.floats(make([]float32, n)),
			V:     b.floats(make([]float32, n)),
			Beta1: 0.9, Beta2: 0.95, Eps: 1e-8}
	}
	scalars := func(step int) kernels.Scalars {
		return kernels.Scalars{LearningRate: 0.01 * float64(step), Correction1: 1 - math.Pow(0.9, float64(step)),
			Correction2: 1 - math.Pow(0.95, float64(step))}
	}
	direct, recorded := state(), state()
	x := b.activation(40, 100, 4)
	l := b.newLinear(100, 70, 1)
	out, want := b.poisoned(40*70), b.poisoned(40*70)
	total := b.floats(make([]float32, 1))
	replay, err := b.d.Capture(func() {
		b.d.AdamW(recorded)
		b.d.LinearAdd(out, nil, x, l.Linear)
		b.d.AddSum(total, recorded.Param)
	})
	b.must(err)
	for step := 1; step <= 3; step++ {
		b.d.SetScalars(scalars(step))
		b.d.AdamW(direct)
		replay()
	}
	b.d.LinearAdd(want, nil, x, l.Linear)
	sum := b.floats(make([]float32, 1))
	b.d.AddSum(sum, direct.Param)
	same(b.t, "parameters after replays", b.download(recorded.Param), b.download(direct.Param), n)
	same(b.t, "outputs after replays", b.download(out), b.download(want), 70)
	if b.download(total)[0] == b.download(sum)[0] {
		b.t.Error("three replays added the sum once")
	}
}
