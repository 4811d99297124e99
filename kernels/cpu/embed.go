package cpu

import "bitnet1/kernels"

// Embed looks tokens up in the codebook.
func (d *Device) Embed(x kernels.Floats, tokens kernels.Ints, codebook kernels.Linear) {
	d.run("Embed", kernels.CheckEmbed(x, tokens, codebook), func() {
		ids, dst, table := tokens.(ints), values(x), effective(codebook)
		d.blocks(len(ids), 64, func(from, to int, _ *scratch) {
			for i := from; i < to; i++ {
				if ids[i] < 0 || int(ids[i]) >= codebook.Out {
					panic(kernels.OutsideVocabulary(i))
				}
				table.segment(dst[i*codebook.In:][:codebook.In], int(ids[i]), 0)
			}
		})
	})
}

// EmbedBackward adds the gradients of rows to the gradients of their tokens, in the order of the rows.
func (d *Device) EmbedBackward(dWeight, dx kernels.Floats, tokens kernels.Ints, width int) {
	d.run("EmbedBackward", kernels.CheckEmbedBackward(dWeight, dx, tokens, width), func() {
		ids, dst, grad := tokens.(ints), values(dWeight), anyFloatsOf(dx)
		d.blocks(width, 64, func(from, to int, s *scratch) {
			line := s.tokenRow.take(to - from)
			for i, id := range ids {
				row := dst[int(id)*width:][from:to]
				for j, v := range d.read(line, grad, i*width+from) {
					row[j] += v
				}
			}
		})
	})
}
