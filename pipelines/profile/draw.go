package main

import (
	"fmt"
	"strings"

	"bitnet1/kernels/timing"
	"bitnet1/shared/plot"
)

// largestKernels are drawn by name.
const largestKernels = 20

// drawProfile draws the categories of a step, and its largest kernels, as bars of milliseconds; where there are several
// devices, their exchanges above them.
func drawProfile(path string, m measurement) error {
	s := m.summarize()
	floats := fmt.Sprintf("\n%.0f %% of the sum in floats", 100*s.floats.Seconds()/s.sum.Seconds())
	categories := newBars(inLines(m.title()) + floats)
	for _, r := range s.rows {
		text := fmt.Sprintf("%.1f ms, %.1f %%", milliseconds(r.time), 100*r.time.Seconds()/s.sum.Seconds())
		if r.share > 0 {
			text += fmt.Sprintf(", %.0f %% of peak", 100*r.share)
		}
		categories.add(string(r.name), milliseconds(r.time-r.floats), milliseconds(r.floats), text)
	}
	kernels := newBars("the longest")
	for _, o := range m.operations[:min(len(m.operations), largestKernels)] {
		took := milliseconds(m.perStep(o.Time))
		integers, floats := took, 0.0
		if o.Float {
			integers, floats = 0, took
		}
		kernels.add(o.Name, integers, floats, fmt.Sprintf("%.1f", took))
	}
	stack, title := plot.Stack{plot.Bars(categories), plot.Bars(kernels)}, m.title()
	if m.together != nil {
		title = m.titleTogether()
		stack = append(plot.Stack{plot.Bars(m.exchangeBars())}, stack...)
	}
	return plot.Write(path, stack, title)
}

// exchangeBars are the exchanges of several devices.
func (m measurement) exchangeBars() bars {
	t := *m.together
	_, waited := t.waited()
	b := newBars(fmt.Sprintf("%s, %.2f times one device\nexchanges, for which a device waits %.1f ms",
		inLines(m.titleTogether()), t.speedup(m.median), milliseconds(waited)))
	for _, o := range t.exchanges {
		if o.Category != timing.Exchanges {
			continue
		}
		_, megabytes, took := t.perStep(o)
		integers, floats := milliseconds(took), 0.0
		if o.Float {
			integers, floats = 0, integers
		}
		b.add(o.Name, integers, floats, fmt.Sprintf("%.1f ms, %.1f GB/s", milliseconds(took), megabytes/1e3/took.Seconds()))
	}
	return b
}

// inLines breaks a title, which is wider than the picture, before the numbers.
func inLines(title string) string { return strings.Replace(title, ": ", ":\n", 1) }

// bars are stacked of work in integers and in floats.
type bars plot.Bars

func newBars(title string) bars {
	return bars{Title: title, Panels: []plot.Panel{{
		X: plot.Axis{Label: "milliseconds of a step"}, Parts: []plot.Part{{Name: "integers"}, {Name: "floats", Color: 1}},
	}}}
}

func (b *bars) add(label string, integers, floats float64, text string) {
	p := &b.Panels[0]
	b.Labels, p.Texts = append(b.Labels, label), append(p.Texts, text)
	p.Parts[0].Values = append(p.Parts[0].Values, integers)
	p.Parts[1].Values = append(p.Parts[1].Values, floats)
}
