//go:build cuda

package cuda

import (
	"fmt"
	"math"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"

	"gorgonia.org/cu"
)

// maxHeadDim bounds Attention.HeadDim: kernels hold a head in registers.
const maxHeadDim = 256

// halfTile is a HalfTile's bytes: 64 rows of a head of 64 channels, as float16.
const halfTile = 64 * 64 * 2

// attend is a kernel that computes what queries read.
type attend = func(l launch, a attention, out, popcounts, pointers cu.DevicePtr) error

func (d *Device) attention(queries, keys, values *planes, a kernels.Attention) (v attention, err error) {
	if a.HeadDim > maxHeadDim {
		return v, fmt.Errorf("heads of %d channels: at most %d are supported on CUDA devices", a.HeadDim, maxHeadDim)
	}
	v = attention{
		batch: int32(a.Batch), seq: int32(a.Seq), heads: int32(a.Heads), dim: int32(a.HeadDim),
		survivors: int32(a.Survivors), layer: uint32(a.Layer),
		queries: queries.data, keys: keys.data, words: int32(keys.words()), queryPlanes: int32(queries.bits),
		queryPlaneWords: int64(queries.planeBytes / 4), queryUnit: queries.quantization.Unit(),
		values: values.data, valueWords: int32(values.words()), valuePlanes: int32(values.bits),
		valuePlaneWords: int64(values.planeBytes / 4), valueUnit: values.quantization.Unit(),
		scale: float32(1 / math.Sqrt(float64(a.HeadDim))), scalars: d.memory.scalars,
		starts: int32s(a.Starts, a.Batch*a.Seq),
	}
	switch noise := a.Kind.Rule().Noise; {
	case noise && a.Noise != nil:
		v.noise = float32s(a.Noise, a.Batch*a.Heads*a.Seq*a.Seq)
	case noise && a.Gumbel:
		v.gumbel = 1
	}
	scores := fmt.Sprintf("scores of %d channels, queries of %v", a.HeadDim, queries.quantization)
	v.products, err = d.table(scores, func() []float64 { return a.DotScores(queries.quantization) })
	if err != nil {
		return v, err
	}
	v.slopes, err = d.table(fmt.Sprintf("slopes of %d heads, %v", a.Heads, a.Alibi), func() []float64 {
		list := make([]float64, a.Heads)
		for h := range list {
			list[h] = a.Slope(h)
		}
		return list
	})
	return v, err
}

// Attend reads values.
func (d *Device) Attend(out kernels.Planes, pointers kernels.Ints, queries, keys, values kernels.Planes,
	a kernels.Attention) {
	d.run("Attend", kernels.CheckAttend(out, pointers, queries, keys, values, a), func() error {
		v, err := d.attention(queries.(*planes), keys.(*planes), values.(*planes), a)
		if err != nil {
			return err
		}
		to, list := out.(*planes), int32s(pointers, a.Batch*a.Heads*a.Seq*a.Survivors)
		v.outWords = int32(to.words())
		levels := v.valuePlanes > 1 // out has no more planes
		if levels && a.Kind != kernels.Softmax {
			return d.attendLevels(to, list, v, a)
		}
		if err := d.clear(to.popcounts, 4*to.rows); err != nil {
			return err
		}
		for b := 0; b < to.bits && a.HeadDim%32 != 0; b++ { // heads share words, and set their bits
			if err := d.clear(to.data+cu.DevicePtr(b*to.planeBytes), to.rows*to.rowBytes()); err != nil {
				return err
			}
		}
		if a.Kind == kernels.Softmax && a.HeadDim == 64 {
			return d.attendSoftmax64(to, list, v, a)
		}
		if queryLevels := v.queryPlanes > 1; a.Kind == kernels.Softmax && (levels || queryLevels) {
			kernel := either(queryLevels, launch.attendSoftmaxQueryLevels, launch.attendSoftmaxLevels)
			return kernel(d.launch(warpPerQuery(a)), v, to.data, to.popcounts, list, to.bits, to.planeBytes/4)
		}
		kernel, g, err := attendKernel(a, v)
		if err != nil {
			return err
		}
		return kernel(d.launch(g), v, to.data, to.popcounts, list)
	})
}

// attendSoftmax64 reads all keys in tiles, and then settles the channels whose levels float32 cannot tell.
func (d *Device) attendSoftmax64(to *planes, pointers cu.DevicePtr, v attention, a kernels.Attention) error {
	heads, tiles := a.Batch*a.Heads, ceilDiv(a.Seq, 64)
	levels, tensors := v.queryPlanes > 1, 1 // values; of signs, kernels for other devices than Hopper read bits
	if levels || d.hopper {
		tensors = 3
	}
	tensor := heads * tiles * halfTile
	values, err := d.scratch("values, keys and queries in tiles", tensors*tensor+4)
	if err != nil {
		return err
	}
	keys, queries := values+cu.DevicePtr(tensor), values+cu.DevicePtr(2*tensor)
	taken := values + cu.DevicePtr(tensors*tensor)
	if err := d.launch(grid(ceilDiv(tiles, 2), heads, tensors)).spreadHeads(v, values, taken); err != nil {
		return err
	}
	unsure, err := d.scratch("channels to settle", 8*heads*a.Seq)
	if err != nil {
		return err
	}
	if d.hopper {
		l := d.launch(grid(min(d.multiprocessors, ceilDiv(tiles, kSoftmaxGroups)*heads)))
		err = l.attendSoftmaxWgmma(v, queries, keys, values, taken, to.data, to.popcounts, pointers, unsure, to.bits,
			to.planeBytes/4)
	} else {
		kernel := either(levels, launch.attendSoftmax64QueryLevels, launch.attendSoftmax64)
		if a.Starts != nil {
			kernel = either(levels, launch.attendSoftmax64QueryLevelsSeparate, launch.attendSoftmax64Separate)
		}
		err = kernel(d.launch(grid(tiles, heads)), v, queries, keys, values, to.data, to.popcounts, pointers, unsure,
			to.bits, to.planeBytes/4)
	}
	if err != nil {
		return err
	}
	return d.launch(grid(ceilDiv(a.Seq, 128), heads)).settleSoftmax(v, values, to.data, to.popcounts, pointers, unsure,
		to.bits, to.planeBytes/4)
}

// attendLevels finds the pointers first, and then reads values of several planes along them.
func (d *Device) attendLevels(to *planes, pointers cu.DevicePtr, v attention, a kernels.Attention) error {
	kernel, g, err := attendKernel(a, v)
	if err != nil {
		return err
	}
	if err := kernel(d.launch(g), v, 0, 0, pointers); err != nil {
		return err
	}
	if v.valuePlanes > 4 || a.Survivors > 4 || a.HeadDim%32 != 0 {
		read := either(a.Survivors > 4, launch.readLevels16, launch.readLevels4)
		return read(d.launch(warpPerRow(to.rows)), v, pointers, to.rows, to.levels(0))
	}
	const values = 1 << 16 // of four survivors with values of 4 bits
	table, err := d.scratch("levels by values", values)
	if err != nil {
		return err
	}
	err = d.launch(grid(values/256)).levelTable(d.memory.scalars, a.Survivors, int(v.valuePlanes), v.valueUnit, to.bits,
		table)
	if err != nil {
		return err
	}
	if err := d.clear(to.popcounts, 4*to.rows); err != nil {
		return err
	}
	blocks := min(2*d.multiprocessors, ceilDiv(to.rows*to.cols/32, 512))
	return d.launch(grid(blocks)).readLevelsFew(v, pointers, to.rows, to.levels(0), table)
}

// attendKernel chooses the kernel for a, and its grid. Kernels with Separate in their names are for sequences of
// several documents, those with QueryLevels for queries of several planes: the others stay as fast as without.
func attendKernel(a kernels.Attention, v attention) (attend, driver.Geometry, error) {
	heads, separate := a.Batch*a.Heads, a.Starts != nil
	switch {
	case a.Kind == kernels.RWSP:
		return survivorsKernel(a, int(v.queryPlanes)), grid(ceilDiv(a.Seq, kTile), heads), nil
	case a.Kind == kernels.Softmax:
		return launch.attendSoftmax, warpPerQuery(a), nil
	case a.Kind == kernels.Pointer && a.Noise == nil && a.Gumbel && v.tiled():
		kernel := either(separate, launch.attendPointer64Separate, launch.attendPointer64)
		return kernel, grid(ceilDiv(a.Seq, 64), heads), nil
	case a.Kind == kernels.Pointer:
		kernel := either(v.queryPlanes > 1, launch.attendPointerQueryLevels, launch.attendPointer)
		return kernel, warpPerQuery(a), nil
	}
	return nil, driver.Geometry{}, errUnknownKind(a.Kind)
}

// errUnknownKind refuses a kind of attention for which there are no kernels.
func errUnknownKind(kind kernels.AttentionKind) error {
	return fmt.Errorf("attention of %s has no CUDA kernels: use another kind", kind)
}

// warpPerQuery is the grid of kernels whose blocks of 256 threads take a query, or a key, with each warp.
func warpPerQuery(a kernels.Attention) driver.Geometry {
	return grid(ceilDiv(a.Seq, 8), a.Batch*a.Heads)
}

// tiled says whether queries, heads and sequences fit the kernels that pass over all pairs a tile at a time. Signs and
// the heads of all presets do.
func (v attention) tiled() bool { return v.queryPlanes == 1 && v.dim == 64 && v.seq%4 == 0 }

// survivorsKernel chooses by the planes of queries, and by the words of a head's bits and the survivors that fit in
// registers.
func survivorsKernel(a kernels.Attention, planes int) attend {
	separate := a.Starts != nil
	few := a.Survivors <= 4 && a.HeadDim <= 64
	switch {
	case planes == 2 && few:
		return either(separate, launch.survivorsQueryLevels2Separate, launch.survivorsQueryLevels2)
	case planes == 3 && few:
		return either(separate, launch.survivorsQueryLevels3Separate, launch.survivorsQueryLevels3)
	case planes == 4 && few:
		return either(separate, launch.survivorsQueryLevels4Separate, launch.survivorsQueryLevels4)
	case planes > 4 && few:
		return either(separate, launch.survivorsQueryLevels8Separate, launch.survivorsQueryLevels8)
	case planes > 1:
		return either(separate, launch.survivorsQueryLevelsSeparate, launch.survivorsQueryLevels)
	case a.Survivors > 4:
		return either(separate, launch.survivors8_16Separate, launch.survivors8_16)
	case a.HeadDim <= 32:
		return either(separate, launch.survivors1_4Separate, launch.survivors1_4)
	case a.HeadDim <= 64:
		return either(separate, launch.survivors2_4Separate, launch.survivors2_4)
	case a.HeadDim <= 128:
		return either(separate, launch.survivors4_4Separate, launch.survivors4_4)
	}
	return either(separate, launch.survivors8_4Separate, launch.survivors8_4)
}

// AttendBackward computes the gradients of queries, keys and values.
func (d *Device) AttendBackward(dqkv, dOut kernels.Floats, queries, keys, values kernels.Planes,
	pointers kernels.Ints, a kernels.Attention) {
	d.run("AttendBackward", kernels.CheckAttendBackward(dqkv, dOut, queries, keys, values, pointers, a), func() error {
		v, err := d.attention(queries.(*planes), keys.(*planes), values.(*planes), a)
		if err != nil {
			return err
		}
		rows, width := a.Batch*a.Seq, a.Heads*a.HeadDim
		to, grad := gradientsOf(dqkv, 3*rows*width), gradientsOf(dOut, rows*width)
		list := int32s(pointers, a.Batch*a.Heads*a.Seq*a.Survivors)
		switch a.Kind {
		case kernels.RWSP:
			return d.survivorsBackward(to, grad, list, v, a)
		case kernels.Softmax, kernels.Pointer:
			return d.denseBackward(to, grad, list, v, a)
		}
		return errUnknownKind(a.Kind)
	})
}

// denseBackward is the backward pass of kinds that read all keys, in training or always: Pointer and Softmax.
func (d *Device) denseBackward(dqkv, dOut gradients, pointers cu.DevicePtr, v attention, a kernels.Attention) error {
	heads, aligned := a.Batch*a.Heads, dqkv.bfloat16 && (dqkv.at|dOut.at)%16 == 0
	if d.hopper && aligned && v.inWarpgroups(a.Kind) {
		return d.warpgroupsBackward(dqkv.at, dOut.at, pointers, v, a)
	}
	stats, err := d.scratch("query statistics", 24*heads*a.Seq)
	if err != nil {
		return err
	}
	inTiles := v.valuePlanes == 1 && v.tiled() && (a.Kind == kernels.Softmax || v.gumbel == 1)
	if inTiles && aligned {
		family, l := denseKernels64Of(a), d.launch(grid(ceilDiv(a.Seq, 64), heads))
		if err := family.denseQueries64(l, v, dOut.at, pointers, stats, dqkv.at); err != nil {
			return err
		}
		return family.denseKeys64(l, v, dOut.at, pointers, stats, dqkv.at)
	}
	pointer := either(a.Kind == kernels.Pointer, 1, 0)
	family, l := either(dqkv.bfloat16, denseKernelsBfloat16, denseKernelsFloat32), d.launch(warpPerQuery(a))
	if v.queryPlanes > 1 {
		family = either(dqkv.bfloat16, denseKernelsQueryLevelsBfloat16, denseKernelsQueryLevelsFloat32)
	}
	if err := family.denseQueries(l, v, dOut.at, pointer, stats, dqkv.at); err != nil {
		return err
	}
	return family.denseKeys(l, v, dOut.at, pointer, pointers, stats, dqkv.at)
}

// inWarpgroups says whether heads and sequences fit warpgroupsBackward. Weights of a pointer's head are kept, 1.6 GB of
// the longest sequence, and four keys share random numbers.
func (v attention) inWarpgroups(kind kernels.AttentionKind) bool {
	if kind == kernels.Pointer && (v.gumbel == 0 || v.seq%4 != 0 || v.seq > 32768) {
		return false
	}
	return v.dim == 64
}

// warpgroupsBackward takes tiles of queries and keys through the matrix units of warpgroups. Heads of pointers take
// turns if there is no memory for the weights of all.
func (d *Device) warpgroupsBackward(dqkv, dOut, pointers cu.DevicePtr, v attention, a kernels.Attention) error {
	heads, perHead, launches := a.Batch*a.Heads, ceilDiv(a.Seq, kDenseRows), 1
	t, err := d.tileMemory(heads, perHead)
	if err != nil {
		return err
	}
	spread, queries, keys := launch.denseTiles, launch.denseQueriesWgmma, launch.denseKeysWgmma
	if a.Kind == kernels.Pointer {
		spread, queries, keys = launch.denseTilesPointer, launch.denseQueriesWgmmaPointer, launch.denseKeysWgmmaPointer
		weights := kWeights * perHead * (perHead + 1) / 2 // of a head
		launches = ceilDiv(heads, max(1, d.weightBytes/weights))
		if t.weights, err = d.scratch("weights of pointers", ceilDiv(heads, launches)*weights); err != nil {
			return err
		}
	}
	t.heads = int32(ceilDiv(heads, launches))
	if err := spread(d.launch(grid(a.Heads, 2*perHead, a.Batch)), v, dOut, pointers, t); err != nil {
		return err
	}
	for ; int(t.turn) < heads; t.turn += t.heads {
		t.heads = min(t.heads, int32(heads)-t.turn)
		l := d.launch(grid(min(d.multiprocessors, ceilDiv(perHead, kDenseGroups)*int(t.heads))))
		if err := queries(l, v, t, dqkv); err != nil {
			return err
		}
		if err := keys(l, v, t, dqkv); err != nil {
			return err
		}
		t.taken += takenBytes
	}
	return nil
}

// takenBytes are those of denseTiles.taken that a launch of both kernels has.
const takenBytes = 8

// tileMemory is the working memory of warpgroupsBackward for heads of perHead tiles, but for weights.
func (d *Device) tileMemory(heads, perHead int) (denseTiles, error) {
	tiles := heads * perHead
	at, err := d.scratch("tiles of attention",
		tiles*(2*kDensePair+kDenseRows*kQueryStart+kQueryEnds+kQueryRange)+takenBytes*heads)
	take := func(bytes int) cu.DevicePtr {
		at += cu.DevicePtr(tiles * bytes)
		return at - cu.DevicePtr(tiles*bytes)
	}
	t := denseTiles{
		queries: take(kDensePair), keys: take(kDensePair),
		starts: take(kDenseRows * kQueryStart), ends: take(kQueryEnds), ranges: take(kQueryRange),
	}
	t.taken = at
	return t, err
}

func denseKernels64Of(a kernels.Attention) denseKernels64 {
	separate := a.Starts != nil
	if a.Kind == kernels.Pointer {
		return either(separate, denseKernels64PointerSeparate, denseKernels64Pointer)
	}
	return either(separate, denseKernels64SoftmaxSeparate, denseKernels64Softmax)
}

func (d *Device) survivorsBackward(dqkv, dOut gradients, pointers cu.DevicePtr, v attention,
	a kernels.Attention) error {
	heads := a.Batch * a.Heads
	slopes, err := d.scratch("score gradients", 4*heads*a.Seq*a.Survivors)
	if err != nil {
		return err
	}
	entries, err := d.scratch("queries by key", 4*heads*a.Seq*a.Survivors)
	if err != nil {
		return err
	}
	offsets, err := d.scratch("offsets of keys", 4*heads*(a.Seq+1))
	if err != nil {
		return err
	}
	lists := grid(heads)
	var counts cu.DevicePtr
	if shared := 4 * a.Seq; shared <= 48<<10 {
		lists.Shared = shared
	} else if counts, err = d.scratch("counts of keys", 4*heads*a.Seq); err != nil {
		return err
	}
	err = d.fork(func() error {
		return d.launch(lists).survivorLists(pointers, a.Seq, a.Survivors, offsets, entries, counts)
	})
	if err != nil {
		return err
	}
	few := v.fewSurvivors() && (dqkv.at|dOut.at|pointers)%16 == 0
	if few && v.queryPlanes > 1 {
		if v.queryLevels, err = d.scratch("levels of queries", heads*a.Seq*a.HeadDim/2); err != nil {
			return err
		}
	}
	scores, gather, g := survivorKernelsOf(a, v, dqkv.bfloat16, few)
	if err := scores(d.launch(g), v, dOut.at, pointers, slopes, dqkv.at); err != nil {
		return err
	}
	if err := d.join(); err != nil {
		return err
	}
	return gather(d.launch(g), v, dOut.at, slopes, offsets, entries, dqkv.at)
}

// fewSurvivors says whether heads, survivors and planes fit the kernels that take eight channels at a time. These need
// memory that begins at multiples of 16 bytes, too.
func (v attention) fewSurvivors() bool {
	return v.dim == 64 && v.survivors == 4 && v.valuePlanes <= 4 && v.queryPlanes <= 4
}

// survivorKernelsOf chooses the kernels of survivorsBackward, and their grid. few says whether those of eight channels
// at a time will do.
func survivorKernelsOf(a kernels.Attention, v attention, bfloat16, few bool) (
	scores func(l launch, a attention, dout, pointers, ds, dqkv cu.DevicePtr) error,
	gather func(l launch, a attention, dout, ds, offsets, entries, dqkv cu.DevicePtr) error, g driver.Geometry) {
	if few {
		family := either(bfloat16, survivorKernels64Bfloat16, survivorKernels64Float32)
		if a.Starts != nil {
			family = either(bfloat16, survivorKernels64SeparateBfloat16, survivorKernels64SeparateFloat32)
		}
		g = grid(a.Heads, ceilDiv(a.Seq, 32), a.Batch)
		if v.queryPlanes > 1 {
			return family.survivorScores64QueryLevels, family.survivorGather64QueryLevels, g
		}
		scores = either(v.valuePlanes > 1, family.survivorScores64Levels, family.survivorScores64)
		return scores, family.survivorGather64, g
	}
	family := either(bfloat16, survivorKernelsBfloat16, survivorKernelsFloat32)
	if v.queryPlanes > 1 {
		return family.survivorScoresQueryLevels, family.survivorGatherQueryLevels, warpPerQuery(a)
	}
	scores, gather = family.survivorScores8_4, family.survivorGather8
	if a.HeadDim <= 64 {
		scores, gather = family.survivorScores2_4, family.survivorGather2
	}
	if a.Survivors > 4 {
		scores = family.survivorScores8_16
	}
	return scores, gather, warpPerQuery(a)
}
