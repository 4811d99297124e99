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

// attention is attention.cuh's Attention.
type attention struct {
	batch, seq, heads, dim, survivors int32
	words, outWords, gumbel           int32
	layer                             uint32
	qkv, noise, products, slopes      cu.DevicePtr
	scale                             float32 // 1 / sqrt(dim)
	scalars, starts                   cu.DevicePtr
}

func (d *Device) attention(qkv *planes, a kernels.Attention) (v attention, err error) {
	width := a.Heads * a.HeadDim
	switch {
	case a.HeadDim > maxHeadDim:
		return v, fmt.Errorf("heads of %d channels: at most %d are supported on CUDA devices", a.HeadDim, maxHeadDim)
	case qkv.rows != a.Batch*a.Seq || qkv.cols != 3*width || qkv.bits != 1:
		return v, fmt.Errorf("%d × %d tokens of %d heads × %d read %v", a.Batch, a.Seq, a.Heads, a.HeadDim, qkv)
	}
	v = attention{batch: int32(a.Batch), seq: int32(a.Seq), heads: int32(a.Heads), dim: int32(a.HeadDim), survivors: int32(a.Survivors),
		words: int32(qkv.words()), layer: uint32(a.Layer), qkv: qkv.data, scale: float32(1 / math.Sqrt(float64(a.HeadDim))), scalars: d.memory.scalars,
		starts: int32s(a.Starts, a.Batch*a.Seq)}
	if a.Kind.Rule().Noise && a.Noise != nil {
		v.noise = float32s(a.Noise, a.Batch*a.Heads*a.Seq*a.Seq)
	} else if a.Gumbel {
		v.gumbel = 1
	}
	v.products, err = d.table(fmt.Sprintf("scores of %d channels", a.HeadDim), func() []float64 {
		list := make([]float64, a.HeadDim+1)
		a.DotScores(list)
		return list
	})
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
func (d *Device) Attend(out kernels.Planes, pointers kernels.Ints, qkv kernels.Planes, a kernels.Attention) {
	d.run("Attend", func() error {
		v, err := d.attention(qkv.(*planes), a)
		if err != nil {
			return err
		}
		to, list := out.(*planes), int32s(pointers, a.Batch*a.Heads*a.Seq*a.Survivors)
		if to.rows != a.Batch*a.Seq || to.cols != a.Heads*a.HeadDim || to.bits != 1 {
			return fmt.Errorf("%d heads × %d into %v", a.Heads, a.HeadDim, to)
		}
		v.outWords = int32(to.words())
		if err := d.clear(to.popcounts, 4*to.rows); err != nil {
			return err
		}
		if a.HeadDim%32 != 0 { // heads share words, and set their bits
			if err := d.clear(to.data, to.rows*to.rowBytes()); err != nil {
				return err
			}
		}
		kernel, g := "", grid(256, ceilDiv(a.Seq, 8), a.Batch*a.Heads)
		switch {
		case a.Kind == kernels.Softmax && tiled(a):
			kernel, g = "attend_softmax_64"+separate(a), grid(128, ceilDiv(a.Seq, 64), a.Batch*a.Heads)
		case a.Kind == kernels.Softmax:
			kernel = "attend_softmax"
		case a.Kind == kernels.Pointer && v.gumbel == 1 && tiled(a):
			kernel, g = "attend_pointer_64"+separate(a), grid(128, ceilDiv(a.Seq, 64), a.Batch*a.Heads)
		case a.Kind == kernels.Pointer:
			kernel = "attend_pointer"
		case a.Kind == kernels.RWSP:
			kernel, g = survivorsKernel(a)+separate(a), grid(128, ceilDiv(a.Seq, 128), a.Batch*a.Heads)
		default:
			return errUnknownKind(a.Kind)
		}
		return d.launch(kernel, g, driver.Bytes(&v), arg(to.data), arg(to.popcounts), arg(list))
	})
}

// errUnknownKind refuses a kind of attention for which there are no kernels.
func errUnknownKind(kind kernels.AttentionKind) error {
	return fmt.Errorf("attention of %s has no CUDA kernels: use another kind", kind)
}

// tiled says whether kernels that pass over all pairs a tile at a time serve a: heads are what presets have.
func tiled(a kernels.Attention) bool { return a.HeadDim == 64 && a.Seq%4 == 0 }

// separate ends the names of kernels that are made twice, so that those of whole sequences stay as fast as they are without documents.
func separate(a kernels.Attention) string {
	if a.Starts == nil {
		return ""
	}
	return "_separate"
}

func survivorsKernel(a kernels.Attention) string {
	if a.Survivors > 4 {
		return "survivors_8_16"
	}
	words := 1
	for 32*words < a.HeadDim {
		words *= 2
	}
	return fmt.Sprintf("survivors_%d_4", words)
}

// AttendBackward computes the gradients of queries, keys and values.
func (d *Device) AttendBackward(dqkv, dOut kernels.Floats, qkv kernels.Planes, pointers kernels.Ints, a kernels.Attention) {
	d.run("AttendBackward", func() error {
		v, err := d.attention(qkv.(*planes), a)
		if err != nil {
			return err
		}
		rows, width, heads := a.Batch*a.Seq, a.Heads*a.HeadDim, a.Batch*a.Heads
		to, grad, list := gradientsOf(dqkv, 3*rows*width), gradientsOf(dOut, rows*width), int32s(pointers, heads*a.Seq*a.Survivors)
		if to.kind != grad.kind {
			return fmt.Errorf("gradients of what is read are %s, those of queries, keys and values %s: they must be of one kind", grad.kind, to.kind)
		}
		g := grid(256, ceilDiv(a.Seq, 8), heads)
		switch a.Kind {
		case kernels.RWSP:
			return d.survivorsBackward(to, grad, list, v, g, a)
		case kernels.Softmax, kernels.Pointer:
		default:
			return errUnknownKind(a.Kind)
		}
		stats, err := d.scratch("query statistics", 24*heads*a.Seq)
		if err != nil {
			return err
		}
		if to.kind == "bfloat16" && tiled(a) && (a.Kind == kernels.Softmax || v.gumbel == 1) && (to.at|grad.at)%16 == 0 {
			kind, g := "softmax"+separate(a), grid(128, ceilDiv(a.Seq, 64), heads)
			if a.Kind == kernels.Pointer {
				kind = "pointer" + separate(a)
			}
			if err := d.launch("dense_queries_64_"+kind, g, driver.Bytes(&v), arg(grad.at), arg(list), arg(stats), arg(to.at)); err != nil {
				return err
			}
			return d.launch("dense_keys_64_"+kind, g, driver.Bytes(&v), arg(grad.at), arg(list), arg(stats), arg(to.at))
		}
		pointer := int32(0)
		if a.Kind == kernels.Pointer {
			pointer = 1
		}
		if err := d.launch("dense_queries_"+to.kind, g, driver.Bytes(&v), arg(grad.at), arg(pointer), arg(stats), arg(to.at)); err != nil {
			return err
		}
		return d.launch("dense_keys_"+to.kind, g, driver.Bytes(&v), arg(grad.at), arg(pointer), arg(list), arg(stats), arg(to.at))
	})
}

func (d *Device) survivorsBackward(dqkv, dOut gradients, pointers cu.DevicePtr, v attention, g driver.Geometry, a kernels.Attention) error {
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
	scores, gather := "survivor_scores_8_4", "survivor_gather_8"
	if a.HeadDim <= 64 {
		scores, gather = "survivor_scores_2_4", "survivor_gather_2"
	}
	if a.Survivors > 4 {
		scores = "survivor_scores_8_16"
	}
	if a.HeadDim == 64 && a.Survivors == 4 && (dqkv.at|dOut.at|pointers)%16 == 0 {
		scores, gather = "survivor_scores_64"+separate(a), "survivor_gather_64"+separate(a)
		g = grid(256, a.Heads, ceilDiv(a.Seq, 32), a.Batch)
	}
	lists := grid(32, heads)
	var counts cu.DevicePtr
	if const48 := 48 << 10; 4*a.Seq <= const48 {
		lists.Shared = 4 * a.Seq
	} else if counts, err = d.scratch("counts of keys", 4*heads*a.Seq); err != nil {
		return err
	}
	err = d.beside(func() error {
		return d.launch("survivor_lists", lists, arg(pointers), arg(int32(a.Seq)), arg(int32(a.Survivors)), arg(offsets), arg(entries), arg(counts))
	})
	if err != nil {
		return err
	}
	if err := d.launch(scores+"_"+dqkv.kind, g, driver.Bytes(&v), arg(dOut.at), arg(pointers), arg(slopes), arg(dqkv.at)); err != nil {
		return err
	}
	if err := d.join(); err != nil {
		return err
	}
	return d.launch(gather+"_"+dqkv.kind, g, driver.Bytes(&v), arg(dOut.at), arg(slopes), arg(offsets), arg(entries), arg(dqkv.at))
}
