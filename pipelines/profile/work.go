package main

import (
	"strings"

	"bitnet1/kernels"
	"bitnet1/kernels/timing"
	"bitnet1/shared/lm/model"
)

// work is how many operations a step's integer products take, a multiplication or an addition each: pairs of bit
// planes, and pairs of bytes.
type work map[timing.Category]float64

// workOf counts the products of a step with the given bits of gradients: train's grad_bits and weight_grad_bits. A GPU
// multiplies as bytes where the right side has several planes: the inputs, in the gradients of weights, and the
// codebook. The processor has no bytes.
func workOf(c model.Config, gradBits, weightGradBits, tokens int, gpu bool) work {
	w := work{}
	blocks, lmHead := model.GradBits(gradBits, weightGradBits)
	linear := func(in, out, planes, weights int, gradients kernels.GradBits) {
		one := 2 * float64(tokens) * float64(in) * float64(out)
		product := func(left, right int) {
			switch {
			case left > 8 || right > 8: // inputs are floats
			case right > 1 && gpu:
				w[timing.ByteProducts] += one
			default:
				w[timing.BinaryProducts] += one * float64(left*right)
			}
		}
		product(planes, weights)
		if !gradients.Rounded() {
			return
		}
		product(gradients.Input, weights)
		product(gradients.Weight, planes)
	}
	for range c.Layers {
		linear(c.D, 3*c.D, c.StreamBits, 1, blocks)
		linear(c.D, c.D, max(1, c.ReadBits), 1, blocks)
		linear(c.D, c.FF, c.StreamBits, 1, blocks)
		linear(c.FF, c.D, max(1, c.HiddenBits), 1, blocks)
	}
	if gpu { // on the processor those of the head are part of the loss
		linear(c.D, c.Vocab, c.StreamBits, max(1, c.CodebookBits), lmHead)
	}
	return w
}

// peaks are operations a second of the units that do the products. Of the GPUs with warpgroup matrix units, an H100 or
// H200 in an SXM module: bits as measured (kernels/cuda/NOTES.md), bytes as its data sheet says. Others are not known.
func peaks(device string) work {
	if strings.Contains(device, "H100") || strings.Contains(device, "H200") {
		return work{timing.BinaryProducts: 15.4e15, timing.ByteProducts: 1.979e15}
	}
	return nil
}
