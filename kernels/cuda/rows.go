//go:build cuda

package cuda

import (
	"errors"
	"fmt"

	"bitnet1/kernels"

	"gorgonia.org/cu"
)

// Embed looks tokens up in the codebook.
func (d *Device) Embed(x kernels.Floats, tokens kernels.Ints, codebook kernels.Linear) {
	d.run("Embed", kernels.CheckEmbed(x, tokens, codebook), func() error {
		rows, table := tokens.Len(), codebook.Quantized.(*planes)
		return d.launch(grid(rows)).embed(float32s(x, rows*codebook.In), int32s(tokens, rows), table.values(),
			float32s(codebook.Mixed, codebook.In*codebook.Out), codebook.In, codebook.Out, d.memory.status)
	})
}

// EmbedBackward adds gradients of rows to those of their tokens, in the order of the rows.
func (d *Device) EmbedBackward(dWeight, dx kernels.Floats, tokens kernels.Ints, width int) {
	d.run("EmbedBackward", kernels.CheckEmbedBackward(dWeight, dx, tokens, width), func() error {
		rows := tokens.Len()
		next, err := d.scratch("next row of a token", 4*rows)
		if err != nil {
			return err
		}
		later, err := d.scratch("later rows of a token", 4*rows)
		if err != nil {
			return err
		}
		if err := d.clear(later, 4*rows); err != nil {
			return err
		}
		ids := int32s(tokens, rows)
		if err := d.launch(grid(ceilDiv(rows, 256))).chainTokens(ids, rows, next, later); err != nil {
			return err
		}
		jumps, err := d.scratch("next rows of a token", 4*kJump*rows)
		if err != nil {
			return err
		}
		if err := d.launch(grid(ceilDiv(rows, 256))).chainJumps(next, rows, jumps); err != nil {
			return err
		}
		from := gradientsOf(dx, rows*width)
		kernel := either(from.bfloat16, launch.embedBackwardBfloat16, launch.embedBackwardFloat32)
		return kernel(d.launch(grid(rows)), float32s(dWeight, 0), from.at, ids, jumps, later, rows, width)
	})
}

// Normalize is RMSNorm followed by the reading of the residual stream.
func (d *Device) Normalize(out kernels.Activation, x kernels.Floats, n kernels.RMSNorm) {
	d.run("Normalize", kernels.CheckNormalize(out, x, n), func() error {
		width, eps := n.Gain.Len(), n.Eps
		rows := x.Len() / width
		if n.Rotation > 1 {
			return errors.New("CUDA devices do not rotate yet")
		}
		from, g := float32s(x, rows*width), float32s(n.Gain, width)
		if out.Floats != nil {
			to := float32s(out.Floats, rows*width)
			return d.launch(warpPerRow(rows)).normalizeFloats(from, g, rows, width, eps, to)
		}
		p := out.Planes.(*planes)
		kernel := launch.normalize
		if 2 <= p.bits && p.bits <= 4 && width <= 1024 && width%128 == 0 && aligned(width, from, g) {
			kernel = launch.normalizeLevels
		}
		return kernel(d.launch(warpPerRow(rows)), from, g, rows, width, eps, p.bits,
			p.data, p.words(), p.planeBytes/4, p.popcounts)
	})
}

// NormalizeBackward is the gradient of Normalize.
func (d *Device) NormalizeBackward(dx, dGain, dOut, x kernels.Floats, n kernels.RMSNorm, q kernels.Quantization) {
	d.run("NormalizeBackward", kernels.CheckNormalizeBackward(dx, dGain, dOut, x, n, q), func() error {
		width, eps := n.Gain.Len(), n.Eps
		rows := x.Len() / width
		to, from := gradientsOf(dx, rows*width), gradientsOf(dOut, rows*width)
		if n.Rotation > 1 {
			return errors.New("CUDA devices do not rotate yet")
		}
		xs, gains := float32s(x, rows*width), float32s(n.Gain, width)
		family := either(to.bfloat16, normalizeBackwardKernelsBfloat16, normalizeBackwardKernelsFloat32)
		kernel, g := family.normalizeBackward, grid(min(ceilDiv(rows, 4), 3*d.multiprocessors))
		switch {
		case width <= 1024 && aligned(width, to.at, from.at, xs, gains):
		case width <= 16*256:
			kernel, g = family.normalizeBackward16, grid(min(rows, 8*d.multiprocessors))
		case width <= 64*256:
			kernel, g = family.normalizeBackward64, grid(min(rows, 8*d.multiprocessors))
		default:
			return fmt.Errorf("rows of %d values: at most %d are supported on CUDA devices", width, 64*256)
		}
		blocks := g.Grid[0]
		partial, err := d.scratch("gradients of gains", 4*blocks*width)
		if err != nil {
			return err
		}
		limit := float32(q.PassLimit())
		if err := kernel(d.launch(g), to.at, partial, from.at, xs, gains, rows, width, eps, limit); err != nil {
			return err
		}
		return d.addColumns(float32s(dGain, width), partial, blocks, width, 1)
	})
}

// Zero clears x.
func (d *Device) Zero(x kernels.Floats) {
	d.run("Zero", kernels.CheckZero(x), func() error {
		to := gradientsOf(x, x.Len())
		return d.clear(to.at, to.bytes(x.Len()))
	})
}

// AddSum adds the sum of x to dst[0].
func (d *Device) AddSum(dst, x kernels.Floats) {
	d.run("AddSum", kernels.CheckAddSum(dst, x), func() error { return d.sum(float32s(dst, 1), x, 0) })
}

// AddSumSquares adds the sum of squares of x to dst[0].
func (d *Device) AddSumSquares(dst, x kernels.Floats) {
	d.run("AddSumSquares", kernels.CheckAddSum(dst, x), func() error { return d.sum(float32s(dst, 1), x, 1) })
}

func (d *Device) sum(dst cu.DevicePtr, x kernels.Floats, square int) error {
	const blocks = 1024
	partial, err := d.scratch("partial sums", 8*blocks)
	if err != nil {
		return err
	}
	if err := d.launch(grid(blocks)).sumBlocks(float32s(x, 0), x.Len(), square, partial); err != nil {
		return err
	}
	return d.launch(grid(1)).addTotal(partial, blocks, dst)
}
