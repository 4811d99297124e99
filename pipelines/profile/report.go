package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"bitnet1/kernels"
	"bitnet1/kernels/timing"
	"bitnet1/shared/lm/model"
)

// row is a category's share of a step.
type row struct {
	name   timing.Category
	calls  float64
	time   time.Duration
	floats time.Duration // of it in work whose arithmetic is that of floats
	rate   float64       // operations a second; 0: none are counted
	share  float64       // of the unit's peak; 0: not known
}

// summary is the sum of the operations of a step.
type summary struct {
	rows   []row // the longest first
	sum    time.Duration
	floats time.Duration
}

func (m measurement) summarize() summary {
	var s summary
	byName := map[timing.Category]*row{}
	for _, o := range m.operations {
		r := byName[o.Category]
		if r == nil {
			r = &row{name: o.Category}
			byName[o.Category] = r
		}
		r.calls += float64(o.Calls) / float64(m.looked)
		r.time += m.perStep(o.Time)
		s.sum += m.perStep(o.Time)
		if o.Float {
			r.floats += m.perStep(o.Time)
			s.floats += m.perStep(o.Time)
		}
	}
	done, most := workOf(m.config, m.gradBits, m.weightGradBits, m.tokens, m.gpu()), peaks(m.name)
	for _, r := range byName {
		if n := done[r.name]; n > 0 && r.time > 0 {
			r.rate = n / r.time.Seconds()
			if peak := most[r.name]; peak > 0 {
				r.share = r.rate / peak
			}
		}
		s.rows = append(s.rows, *r)
	}
	slices.SortFunc(s.rows, func(a, b row) int { return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(a.name, b.name)) })
	return s
}

func (m measurement) perStep(t time.Duration) time.Duration { return t / time.Duration(m.looked) }

// gpu reports whether kernels of a GPU were measured, rather than operations of the processor.
func (m measurement) gpu() bool { return !strings.HasPrefix(m.name, "cpu") }

func (m measurement) title() string { return m.settings.title(m.name, m.median) }

func (m measurement) titleTogether() string {
	return m.together.title(fmt.Sprintf("%d × %s", len(m.together.devices), m.name), m.together.median)
}

func (s settings) title(device string, median time.Duration) string {
	micro := ""
	if s.micro != s.tokens {
		micro = fmt.Sprintf(" in micro-batches of %d", s.micro)
	}
	preset, c := s.preset, s.config
	if own, err := model.Preset(preset); err != nil || c.D != own.D || c.Layers != own.Layers || c.Heads != own.Heads ||
		c.FF != own.FF {
		preset += fmt.Sprintf(" but d %d, %d layers, %d heads, ff %d,", c.D, c.Layers, c.Heads, c.FF)
	}
	if own, err := model.Preset(s.preset); err == nil && c.Seq != own.Seq {
		preset += fmt.Sprintf(" with sequences of %d tokens", c.Seq)
	}
	if a := s.config.Attention; a != kernels.RWSP.String() {
		preset += " with " + a + " attention"
	}
	if c.HasV77() {
		preset += fmt.Sprintf(" with hidden layers of %d bits, queries of %d, values of %d, reads of %d, "+
			"a codebook of %d, rotations of %d", c.Hidden().Bits(), c.Queries().Bits(), c.Values().Bits(), c.Reads().Bits(),
			c.Codebook().Bits(), c.Hadamard)
	}
	if s.weightGradBits > 0 && s.gradBits != kernels.FloatBits {
		preset += fmt.Sprintf(" with weights' gradients of %d bits", s.weightGradBits)
	}
	if s.muon {
		preset += fmt.Sprintf(" with %d steps of Muon", s.muonSteps)
	}
	if s.documents.Separate {
		preset += fmt.Sprintf(" with separate documents of %d tokens", s.length)
	}
	if s.fixedSums {
		preset += " with fixed sums of gradients"
	}
	return fmt.Sprintf("%s on %s, stream of %d bits, gradients of %d: %d tokens a step%s, %.1f ms, %.1f k tokens/s",
		preset, device, s.config.StreamBits, s.gradBits, s.tokens, micro, milliseconds(median),
		float64(s.tokens)/median.Seconds()/1000)
}

// writeReport writes Markdown that reads as well on a console.
func writeReport(w io.Writer, m measurement) error {
	if m.together != nil {
		if err := m.writeTogether(w); err != nil {
			return err
		}
		fmt.Fprint(w, "\nOne of the devices, which takes its part of the step alone:\n")
	}
	return m.writeAlone(w)
}

// writeTogether writes what several devices do.
func (m measurement) writeTogether(w io.Writer) error {
	t := *m.together
	fmt.Fprintf(w, "%s: %.2f times one device, and %.2f times one with float sums (median of %d).\n\n", m.titleTogether(),
		t.speedup(m.median), t.speedup(t.floatAlone), t.steps)
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(table, "| exchange\t| calls\t| ms\t| MB\t| GB/s\t|\n|---\t|---\t|---\t|---\t|---\t|\n")
	for _, o := range t.exchanges {
		if o.Category == timing.Exchanges {
			calls, megabytes, took := t.perStep(o)
			fmt.Fprintf(table, "| %s\t| %.0f\t| %.2f\t| %.1f\t| %.1f\t|\n", o.Name, calls, milliseconds(took), megabytes,
				megabytes/1e3/took.Seconds())
		}
	}
	calls, took := t.waited()
	fmt.Fprintf(table, "| a device waits for them\t| %.0f\t| %.2f\t| \t| \t|\n", calls, milliseconds(took))
	return table.Flush()
}

// writeAlone writes what one device does.
func (m measurement) writeAlone(w io.Writer) error {
	s := m.summarize()
	share := func(t time.Duration) float64 { return 100 * float64(t) / float64(max(s.sum, 1)) }
	fmt.Fprintf(w, "%s (median of %d)", m.title(), m.steps)
	if m.memory > 0 {
		fmt.Fprintf(w, ", %.1f GiB of memory", float64(m.memory)/(1<<30))
	}
	fmt.Fprint(w, ".\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(t, "| category\t| calls\t| ms\t| %\t| T op/s\t| % of peak\t|\n|---\t|---\t|---\t|---\t|---\t|---\t|\n")
	for _, r := range s.rows {
		fmt.Fprintf(t, "| %s\t| %.0f\t| %.2f\t| %.1f\t| %s\t| %s\t|\n", r.name, r.calls, milliseconds(r.time), share(r.time),
			unless(r.rate == 0, "%.4g", r.rate/1e12), unless(r.share == 0, "%.1f", 100*r.share))
	}
	fmt.Fprintf(t, "| sum, one by one\t| \t| %.2f\t| 100\t| \t| \t|\n", milliseconds(s.sum))
	fmt.Fprintf(t, "| of it float work\t| \t| %.2f\t| %.1f\t| \t| \t|\n", milliseconds(s.floats), share(s.floats))
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	what := "operation"
	if m.gpu() {
		what = "kernel"
	}
	fmt.Fprintf(t, "| %s\t| category\t| calls\t| ms\t| %%\t|\n|---\t|---\t|---\t|---\t|---\t|\n", what)
	for _, o := range m.operations {
		fmt.Fprintf(t, "| %s\t| %s\t| %.0f\t| %.3f\t| %.1f\t|\n", o.Name, o.Category, float64(o.Calls)/float64(m.looked),
			milliseconds(m.perStep(o.Time)), share(m.perStep(o.Time)))
	}
	return t.Flush()
}

func unless(not bool, format string, v float64) string {
	if not {
		return ""
	}
	return fmt.Sprintf(format, v)
}

func milliseconds(t time.Duration) float64 { return t.Seconds() * 1000 }
