package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"bitnet1/shared/measure"
	"bitnet1/shared/plot"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// attentionFormat is the version of attentionReport.
const attentionFormat = "bitnet1.attention.v1"

// attentionReport is the content of *_attention.json: which keys each query of one sequence read.
type attentionReport struct {
	Format string `json:"format"`
	about
	Sequence  int         `json:"sequence"`  // its number, from 1
	Attention string      `json:"attention"` // kind of attention, in configurations
	Tokens    []int32     `json:"tokens"`    // by position
	Texts     []string    `json:"texts"`     // of the tokens
	Weights   [][]float64 `json:"weights"`   // Weights[n-1] are those of the n keys of a query that reads n, best first
	Heads     []headKeys  `json:"heads"`
}

// headKeys are the keys of one head.
type headKeys struct {
	Layer int       `json:"layer"`
	Head  int       `json:"head"`
	Keys  [][]int32 `json:"keys"` // positions of the keys that each query read, best first
}

// checkShow reports whether the sequence and the head that the parameters name are there.
func (p Params) checkShow(s *measure.Subject, on sequences) error {
	if n := on.count(); p.Show > n {
		return fmt.Errorf("show is %d, and the last sequence is number %d", p.Show, n)
	}
	if p.ShowHead == "" {
		return nil
	}
	layer, head, err := parseHead(p.ShowHead)
	if c := s.Model.Config(); err == nil && (layer >= c.Layers || head >= c.Heads) {
		err = fmt.Errorf("show_head is %s, and the model has %d layers of %d heads", p.ShowHead, c.Layers, c.Heads)
	}
	return err
}

// show writes and draws the attention of the sequence that the parameters name. The top head is drawn large if they
// name none.
func show(job *stage.Job[Params], s *measure.Subject, on sequences, about about, top head,
	written *event.ProbeWritten) error {
	p := job.Params
	layer, large := top.Layer, top.Head
	if p.ShowHead != "" {
		var err error
		if layer, large, err = parseHead(p.ShowHead); err != nil {
			return stage.Permanent(err)
		}
	}
	c := s.Model.Config()
	r, err := readAttention(s, on, p.Show)
	if err != nil {
		return err
	}
	r.about = about
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	keys, err := artifact.Put(job, "probe", "application/json", s.Name("attention"), append(b, '\n'))
	if err != nil {
		return err
	}
	title := fmt.Sprintf("Attention of sequence %d, step %d", p.Show, about.Step)
	svg, err := plot.SVG(r.figure(layer*c.Heads+large, c.Heads), title,
		"For each head, the weights of the keys that queries read")
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(s.Name("attention"), ".json") + ".svg"
	picture, err := artifact.Put(job, "picture", "image/svg+xml", name, svg)
	written.Attention, written.Picture = &keys, &picture
	return err
}

// readAttention computes a sequence and reads its pointers. What fills the sequence up is left out.
func readAttention(s *measure.Subject, on sequences, number int) (*attentionReport, error) {
	tokens, targets, err := on.read(number-1, number)
	if err != nil {
		return nil, err
	}
	if _, err := s.Model.Logits(tokens, 0, 0, s.Settings); err != nil { // the pass alone
		return nil, err
	}
	c := s.Model.Config()
	length := 0
	for k, target := range targets {
		if target >= 0 {
			length = min(k+2, s.Seq)
		}
	}
	weights := weightsOf(c, s.Settings)
	r := &attentionReport{Format: attentionFormat, Sequence: number, Attention: c.Attention, Tokens: tokens[:length],
		Weights: weights[1:]}
	for _, id := range r.Tokens {
		r.Texts = append(r.Texts, s.Text([]int32{id}))
	}
	survivors := c.Survivors(s.Seq)
	for layer := range c.Layers {
		pointers, err := s.Model.Pointers(layer)
		if err != nil {
			return nil, err
		}
		for h := range c.Heads {
			keys := make([][]int32, length)
			for k := range keys {
				keys[k], _ = weights.live(pointers[(h*s.Seq+k)*survivors:][:survivors])
			}
			r.Heads = append(r.Heads, headKeys{layer, h, keys})
		}
	}
	return r, nil
}

// figure draws one head large, and all heads small: a line for each layer.
func (r *attentionReport) figure(large, perLine int) plot.Figure {
	all := plot.Attention{Positions: len(r.Tokens), PerLine: perLine}
	for _, h := range r.Heads {
		drawn := plot.HeadReads{Title: headName(h.Layer, h.Head)}
		for k, keys := range h.Keys {
			for rank, u := range keys {
				drawn.Reads = append(drawn.Reads, plot.Read{Query: k, Key: int(u), Weight: r.Weights[len(keys)-1][rank]})
			}
		}
		all.Heads = append(all.Heads, drawn)
	}
	one := plot.Attention{Positions: all.Positions, Heads: all.Heads[large : large+1]}
	for _, t := range r.Texts {
		one.Tokens = append(one.Tokens, visible(t))
	}
	return plot.Stack{one, all}
}

// visible writes a token so that people see spaces, ends of lines and bytes that are no text.
func visible(token string) string {
	var b strings.Builder
	for i, r := range token {
		switch {
		case r == ' ':
			b.WriteRune('·')
		case r == '\n':
			b.WriteRune('↵')
		case r == utf8.RuneError:
			fmt.Fprintf(&b, "%02x", token[i])
		case !unicode.IsPrint(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
