package progress

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"bitnet1/shared/run/results"
)

// Line is what people see of a stage at work: the same line from a launcher and from a one-shot run.
type Line struct {
	Stage string
	State string // waiting, queued, working, done or failed; empty: working
	Report
	Left time.Duration // how long the job will go on, as far as that can be said; 0 while it cannot
}

// Working is the line's state while a stage is at work.
const Working = "working"

// layout is one way to write a line; further ones take less room.
type layout struct {
	name         string // how the stage's name is written
	state, unit  bool
	rate         string // what follows the rate
	validation   string // what the validation loss is called
	lossUnit     string
	learningRate bool
}

var layouts = []layout{
	{"%-8s", true, true, "%s %s/s", "validation", " bits/token", true},
	{"%-8s", true, true, "%s %s/s", "validation", "", false},
	{"%-8s", false, true, "%s %s/s", "validation", "", false},
	{"%-8s", false, true, "%s %s/s", "val", "", false},
	{"%-8s", false, false, "%s/s", "val", "", false},
	{"%s", false, false, "%s/s", "val", "", false},
	{"%s", false, false, "", "val", "", false},
}

// Text writes the line in at most width characters; 0 is any width. A state is always written where nothing is counted.
func (l Line) Text(width int) string {
	text := ""
	for _, form := range layouts {
		if text = form.write(l); width <= 0 || utf8.RuneCountInString(text) <= width {
			return text
		}
	}
	return string([]rune(text)[:width])
}

func (f layout) write(l Line) string {
	parts := []string{fmt.Sprintf(f.name, l.Stage)}
	if l.State != "" && (f.state || l.State != Working || l.Total == 0) {
		parts = append(parts, l.State)
	}
	if l.Total > 0 {
		count := fmt.Sprintf("%d/%d", l.Done, l.Total)
		if f.unit {
			count += " " + l.Unit
		}
		parts = append(parts, count)
	}
	if rate, unit := l.rate(); rate > 0 && f.rate != "" {
		parts = append(parts,
			strings.TrimSuffix(fmt.Sprintf(f.rate, []any{results.SI(rate), unit}[:strings.Count(f.rate, "%s")]...), " "))
	}
	if left := l.left(); left != "" {
		parts = append(parts, left+" left")
	}
	if v, ok := l.Values["loss"]; ok {
		parts = append(parts, fmt.Sprintf("loss %.3f%s", v, f.lossUnit))
	}
	if v := l.Values["val_bpc"]; v > 0 {
		parts = append(parts, fmt.Sprintf("%s %.3f", f.validation, v))
	}
	if v, ok := l.Values["learning_rate"]; ok && f.learningRate {
		parts = append(parts, fmt.Sprintf("lr %.2g", v))
	}
	return strings.TrimRight(strings.Join(parts, "  "), " ")
}

// rate is the first rate among the measurements, and what is counted.
func (l Line) rate() (v float64, unit string) {
	for _, unit := range []string{"tokens", "bytes", "documents"} {
		if v := l.Values[unit+"_per_second"]; v > 0 {
			return v, unit
		}
	}
	return 0, ""
}

// left is how long the job will go on, for people: 18s, 12m30s, 3h20m.
func (l Line) left() string {
	switch d := l.Left; {
	case d < time.Second:
		return ""
	case d < time.Hour:
		return d.Round(time.Second).String()
	default:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
}
