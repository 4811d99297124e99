package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/plot"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the report shows.
type page struct {
	Title, Subtitle string
	Sections        []section
}

// section is a part of the page. A section without figures, tables, text and commands is left out.
type section struct {
	ID, Title string
	Text      []string
	Figures   []*figure
	Tables    []table
	Commands  []string
}

// table is a table of the page. The first left columns are texts, whose lines may break in the last of them.
type table struct {
	Title  string
	Head   []string
	Rows   [][]string
	Left   int
	Fold   bool // shown when it is asked for
	Legend []meaning
}

type meaning struct{ Name, Meaning string }

// IsLeft reports whether a column holds texts.
func (t table) IsLeft(column int) bool { return column < t.Left }

// Class is the class of a column of texts.
func (t table) Class(column int) string {
	if column == len(t.Head)-1 {
		return "left wrap"
	}
	return "left"
}

// SVG is the figure as a part of the page: package plot escapes its texts.
func (f *figure) SVG() template.HTML { return template.HTML(f.svg) } //nolint:gosec // see above

// Width is how wide the figure is on the screen at most, in points: its fonts then have the size of the page's.
func (f *figure) Width() int { return int(1.6 * plot.Width(f.drawn).Points()) }

// Wide reports whether the figure needs the width of the page.
func (f *figure) Wide() bool { return plot.Width(f.drawn) > plot.Column }

func (p page) html() ([]byte, error) {
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, p)
	return b.Bytes(), err
}

func pageOf(runs []*history.Run, figures []*figure) page {
	p := page{Title: "Run " + runs[0].ID}
	if len(runs) > 1 {
		var others []string
		for _, r := range runs[1:] {
			others = append(others, r.ID)
		}
		p.Title += " beside " + strings.Join(others, ", ")
	}
	p.Subtitle = subtitle(runs[0])
	p.Sections = []section{
		{ID: "results", Title: "Results", Tables: resultTables(runs)},
		{ID: partLoss, Title: "Loss"},
		{ID: partMeasures, Title: "Measures over training"},
		{ID: partSchedule, Title: "Schedule"},
		{ID: partHeads, Title: "Heads", Tables: headTables(runs)},
		{ID: partTime, Title: "Time", Tables: timeTables(runs)},
		{ID: "parameters", Title: "Parameters", Tables: parameterTables(runs)},
		{ID: "data", Title: "Data", Tables: dataTables(runs)},
		{ID: "machine", Title: "Machine", Tables: machineTables(runs)},
		{ID: "log", Title: "Training log", Tables: logTables(runs)},
		commandsSection(runs),
		{ID: "missing", Title: "What is missing", Tables: missingTables(runs)},
	}
	for i := range p.Sections {
		for _, f := range figures {
			if f.part == p.Sections[i].ID {
				p.Sections[i].Figures = append(p.Sections[i].Figures, f)
			}
		}
	}
	p.Sections = slices.DeleteFunc(p.Sections, func(s section) bool {
		return len(s.Figures)+len(s.Tables)+len(s.Text)+len(s.Commands) == 0
	})
	return p
}

// subtitle says in a line what the run is and how far it has come.
func subtitle(r *history.Run) string {
	parts := []string{r.State}
	if d := r.Definition; d != nil {
		parts = append(parts, fmt.Sprintf("pipeline %s, preset %s, seed %d", d.Name, d.Preset, d.Seed))
	}
	if r.Training.Weights > 0 {
		parts = append(parts, thousands(r.Training.Weights)+" parameters")
	}
	if last := r.Last(); last.Step > 0 {
		parts = append(parts, fmt.Sprintf("%s steps, %s tokens", thousands(int64(last.Step)), thousands(last.Tokens)))
	}
	parts = append(parts, "begun "+at(r.Started))
	return strings.Join(parts, "; ") + "."
}

// at is a time in Unix milliseconds, for people anywhere.
func at(milliseconds int64) string {
	return time.UnixMilli(milliseconds).UTC().Format("2006-01-02 15:04:05 UTC")
}

// thousands writes a number with a space between its thousands.
func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + " " + text[i:]
	}
	return text
}
