//go:build cuda

package cuda

import (
	"fmt"
	"math"

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
		from, g := float32s(x, rows*width), float32s(n.Gain, width)
		if n.Rotation > 1 {
			return d.normalizeRotated(out, from, g, rows, width, n)
		}
		if out.Floats != nil {
			to := float32s(out.Floats, rows*width)
			return d.launch(warpPerRow(rows)).normalizeFloats(from, g, rows, width, eps, to)
		}
		p := out.Planes.(*planes)
		kernel := launch.normalize
		if p.bits >= 2 && packsNibbles(p, from, g) {
			kernel = launch.normalizeLevels
		}
		return kernel(d.launch(warpPerRow(rows)), from, g, rows, width, eps, p.bits,
			p.data, p.words(), p.planeBytes/4, p.popcounts)
	})
}

// packsNibbles says whether a warp can hold a row and pack its levels as nibbles.
func packsNibbles(p *planes, x, gain cu.DevicePtr) bool {
	return p.bits <= 4 && fitsWarps(1, p.cols, x, gain)
}

// fitsWarps says whether so many warps can hold a row, each an equal part of it with groups of 128 columns among its
// lanes.
func fitsWarps(warps, width int, pointers ...cu.DevicePtr) bool {
	return width <= warps*1024 && width%(warps*128) == 0 && aligned(width, pointers...)
}

func (d *Device) normalizeRotated(out kernels.Activation, x, gain cu.DevicePtr, rows, width int,
	n kernels.RMSNorm) error {
	if out.Planes != nil {
		p := out.Planes.(*planes)
		small := n.Rotation <= 128 && p.bits <= 4
		normalize, warps := launch.normalizeRotated, 1
		if !fitsWarps(1, width, x, gain) {
			normalize, warps = launch.normalizeRotatedWide, 2
		}
		if small && fitsWarps(warps, width, x, gain) {
			g := d.launch(grid(min(ceilDiv(warps*rows, 8), 2*d.multiprocessors)))
			return normalize(g, x, gain, rows, width, n.Eps, n.Rotation, p.bits,
				p.data, p.words(), p.planeBytes/4, p.popcounts)
		}
	}
	v, factors, err := d.rotated(x, gain, rows, width, n)
	if err != nil {
		return err
	}
	g := d.launch(warpPerRow(rows))
	if out.Floats != nil {
		return g.quantizeRotated(v, factors, rows, width, levels{}, float32s(out.Floats, rows*width))
	}
	return g.quantizeRotated(v, factors, rows, width, out.Planes.(*planes).levels(0), 0)
}

// rotated returns gain * x, rotated, for rows of any length, and the factors of rows that are missing to what n says:
// as float64 in working memory.
func (d *Device) rotated(x, gain cu.DevicePtr, rows, width int, n kernels.RMSNorm) (v, factors cu.DevicePtr,
	err error) {
	if v, err = d.scratch("rotated rows", 8*rows*width); err != nil {
		return 0, 0, err
	}
	if factors, err = d.scratch("factors of rotated rows", 8*rows); err != nil {
		return 0, 0, err
	}
	return v, factors, d.launch(grid(rows)).rotateNormalized(x, gain, width, n.Eps, n.Rotation, v, factors)
}

// NormalizeBackward is the gradient of Normalize.
func (d *Device) NormalizeBackward(dx, dGain, dOut, x kernels.Floats, n kernels.RMSNorm, q kernels.Quantization) {
	d.run("NormalizeBackward", kernels.CheckNormalizeBackward(dx, dGain, dOut, x, n, q), func() error {
		width, limit := n.Gain.Len(), float32(q.PassLimit())
		rows := x.Len() / width
		to, from := gradientsOf(dx, rows*width), gradientsOf(dOut, rows*width)
		xs, gains := float32s(x, rows*width), float32s(n.Gain, width)
		family := either(to.bfloat16, normalizeBackwardKernelsBfloat16, normalizeBackwardKernelsFloat32)
		kernel, g := family.normalizeBackward, grid(min(rows, 8*d.multiprocessors))
		rotated := either(to.bfloat16, rotatedKernelsBfloat16, rotatedKernelsFloat32)
		inWarp := grid(min(ceilDiv(rows, 4), 3*d.multiprocessors))
		switch {
		case width > 64*256:
			return fmt.Errorf("rows of %d values: at most %d are supported on CUDA devices", width, 64*256)
		case 1 < n.Rotation && n.Rotation <= 128 && fitsWarps(1, width, to.at, from.at, xs, gains):
			g, kernel = inWarp, rotating(rotated.normalizeBackwardRotated, n.Rotation)
		case 1 < n.Rotation && n.Rotation <= 128 && fitsWarps(2, width, to.at, from.at, xs, gains):
			g = grid(min(ceilDiv(rows, 2), 3*d.multiprocessors))
			kernel = rotating(rotated.normalizeBackwardRotatedWide, n.Rotation)
		case n.Rotation > 1:
			var err error
			if from.at, err = d.rotatedGradient(from, xs, gains, rows, width, n, limit); err != nil {
				return err
			}
			kernel, limit = family.normalizeBackward64FromFloat64, float32(math.Inf(1)) // the mask is applied
		case width <= 1024 && aligned(width, to.at, from.at, xs, gains):
			g = inWarp
		case width <= 16*256:
			kernel = family.normalizeBackward16
		default:
			kernel = family.normalizeBackward64
		}
		blocks := g.Grid[0]
		partial, err := d.scratch("gradients of gains", 4*blocks*width)
		if err != nil {
			return err
		}
		if err := kernel(d.launch(g), to.at, partial, from.at, xs, gains, rows, width, n.Eps, limit); err != nil {
			return err
		}
		return d.addColumns(float32s(dGain, width), partial, blocks, width, 1)
	})
}

type backwardOfRows = func(l launch, dx, partial, dout, x, gain cu.DevicePtr, rows, width int, eps float64,
	limit float32) error

// rotating is a kernel with its last parameter set.
func rotating(kernel func(l launch, dx, partial, dout, x, gain cu.DevicePtr, rows, width int, eps float64,
	limit float32, rotation int) error, rotation int) backwardOfRows {
	return func(l launch, dx, partial, dout, x, gain cu.DevicePtr, rows, width int, eps float64, limit float32) error {
		return kernel(l, dx, partial, dout, x, gain, rows, width, eps, limit, rotation)
	}
}

// rotatedGradient returns the gradient of gain * x / rms, for rows of any length, as float64 in working memory.
func (d *Device) rotatedGradient(dOut gradients, x, gain cu.DevicePtr, rows, width int, n kernels.RMSNorm,
	limit float32) (cu.DevicePtr, error) {
	v, factors, err := d.rotated(x, gain, rows, width, n)
	if err != nil {
		return 0, err
	}
	to, err := d.scratch("rotated gradients", 8*rows*width)
	if err != nil {
		return 0, err
	}
	kernels := either(dOut.bfloat16, rotatedKernelsBfloat16, rotatedKernelsFloat32)
	return to, kernels.rotateGradient(d.launch(grid(rows)), v, factors, dOut.at, width, n.Rotation, limit, to)
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
