package model

import (
	"fmt"
	"math"

	"bitnet1/kernels"
)

// KeepReads makes the model keep what attention reads in every layer, for Reads and DirectLogits, in passes from now
// on. A model without a backward pass otherwise keeps the last layer's alone.
func (m *Model) KeepReads() error {
	if !m.options.Inference {
		return nil
	}
	a := kernels.Allocator{Device: m.dev}
	for i := 1; i < len(m.layers); i++ {
		m.layers[i].attnOut = a.Activation(m.rows(), m.config.D, m.config.Reads())
	}
	clear(m.programs) // a captured one writes to the buffers of before
	m.readsKept = a.Err == nil
	return a.Err
}

// Reads returns what the heads of a layer read in the last pass, the input of the linear o: rows × D. The columns of
// head h are h*HeadDim to (h+1)*HeadDim-1.
func (m *Model) Reads(layer int) ([]float32, error) {
	switch {
	case layer < 0 || layer >= len(m.layers):
		return nil, fmt.Errorf("reads of layer %d: the model has %d", layer, len(m.layers))
	case m.options.Inference && !m.readsKept:
		return nil, fmt.Errorf("reads of layer %d: KeepReads was not called", layer)
	}
	return m.decoded(m.layers[layer].attnOut.Planes, m.config.Reads())
}

// DirectLogits returns what each head of a layer adds by itself to the logits of some tokens, rows from..to-1 of the
// last pass: rows × Heads × tokens. It is the direct logit attribution of Elhage et al. 2021: the head's output in the
// residual stream goes through the gain and the rotation of the last norm and through the codebook. The division by the
// stream's root mean square, which is the same for all heads and tokens of a row, is left out, and so is the
// quantization of the stream, which no single head determines.
func (m *Model) DirectLogits(layer, from, to int, tokens []int32) ([]float32, error) {
	reads, err := m.Reads(layer)
	if err != nil {
		return nil, err
	}
	if from < 0 || to < from || to > m.rows() {
		return nil, fmt.Errorf("direct logits of rows %d to %d of %d", from, to, m.rows())
	}
	d, heads := m.config.D, m.config.Heads
	weight, err := m.effective(m.layers[layer].o)
	if err != nil {
		return nil, err
	}
	readouts, err := m.readouts(tokens)
	if err != nil {
		return nil, err
	}
	alpha := make([]float32, d)
	if err := m.dev.Download(alpha, m.layers[layer].o.Alpha); err != nil {
		return nil, err
	}
	// What 1 in a column of reads adds to the logit of a token: tokens × D.
	effects := make([]float64, len(tokens)*d)
	for t := range tokens {
		effect, readout := effects[t*d:][:d], readouts[t*d:][:d]
		for channel, x := range readout {
			x *= float64(alpha[channel])
			for column, w := range weight[channel*d:][:d] {
				effect[column] += x * float64(w)
			}
		}
	}
	width := m.config.HeadDim()
	logits := make([]float32, 0, (to-from)*heads*len(tokens))
	for row := from; row < to; row++ {
		for h := range heads {
			read := reads[row*d+h*width:][:width]
			for t := range tokens {
				var sum float64
				for column, e := range effects[t*d+h*width:][:width] {
					sum += e * float64(read[column])
				}
				logits = append(logits, float32(sum))
			}
		}
	}
	return logits, nil
}

// readouts are the directions of the residual stream that raise the logits of some tokens: tokens × D.
func (m *Model) readouts(tokens []int32) ([]float64, error) {
	d := m.config.D
	gain, alpha := make([]float32, d), make([]float32, m.config.Vocab)
	if err := m.dev.Download(gain, m.normOut.Gain); err != nil {
		return nil, err
	}
	if err := m.dev.Download(alpha, m.codebook.Alpha); err != nil {
		return nil, err
	}
	all := make([]float64, 0, len(tokens)*d)
	for _, id := range tokens {
		if id < 0 || int(id) >= m.config.Vocab {
			return nil, fmt.Errorf("token %d is outside the vocabulary of %d", id, m.config.Vocab)
		}
		row := m.codebook
		row.Out, row.Quantized = 1, row.Quantized.Slice(int(id), int(id)+1)
		if row.Mixed != nil {
			row.Mixed = row.Mixed.Slice(int(id)*d, int(id+1)*d)
		}
		weight, err := m.effective(row)
		if err != nil {
			return nil, err
		}
		readout := make([]float64, d)
		for i, w := range weight {
			readout[i] = float64(w) * float64(alpha[id])
		}
		rotate(readout, m.normOut.Rotation)
		for i := range readout {
			readout[i] *= float64(gain[i])
		}
		all = append(all, readout...)
	}
	return all, nil
}

// effective are the weights with which l computes in the last pass, Out × In.
func (m *Model) effective(l kernels.Linear) ([]float32, error) {
	if l = m.strict(l); l.Mixed == nil {
		return m.decoded(l.Quantized, l.Quantized.Quantization())
	}
	w := make([]float32, l.In*l.Out)
	return w, m.dev.Download(w, l.Mixed)
}

// decoded returns the values that planes hold, rows × columns.
func (m *Model) decoded(p kernels.Planes, q kernels.Quantization) ([]float32, error) {
	rows, columns := p.Rows(), p.Cols()
	words := (columns + 63) / 64
	packed := make([]uint64, rows*q.Planes()*words)
	if err := m.dev.DownloadPlanes(packed, p); err != nil {
		return nil, err
	}
	values := make([]float32, rows*columns)
	for r := range rows {
		for c := range columns {
			integer := 0
			for b := range q.Planes() {
				bit := int(packed[(r*q.Planes()+b)*words+c/64] >> (c % 64) & 1)
				if q.PlusMinus() {
					bit = 2*bit - 1
				}
				integer += bit << b
			}
			values[r*columns+c] = float32(integer) * q.Unit()
		}
	}
	return values, nil
}

// rotate multiplies blocks of x by the orthonormal Hadamard matrix of their size, a power of two (Sylvester's order);
// it is its own inverse. Blocks of 0 or 1 stay as they are.
func rotate(x []float64, block int) {
	if block < 2 {
		return
	}
	factor := 1 / math.Sqrt(float64(block))
	for ; len(x) > 0; x = x[block:] {
		for half := 1; half < block; half *= 2 {
			for i := range block {
				if i&half == 0 {
					x[i], x[i+half] = x[i]+x[i+half], x[i]-x[i+half]
				}
			}
		}
		for i := range block {
			x[i] *= factor
		}
	}
}
