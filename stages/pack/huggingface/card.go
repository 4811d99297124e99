package huggingface

import (
	"bytes"
	_ "embed" // of the card
	"encoding/json"
	"fmt"
	"strings"
	"text/template"

	"bitnet1/kernels"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/measure/history"
	"bitnet1/shared/run/results"
)

//go:embed card.tmpl
var cardText string

var cardTemplate = template.Must(template.New("card").Funcs(template.FuncMap{"cell": cell}).Parse(cardText))

// About is what a model card says that the model's file does not.
type About struct {
	Name     string
	Language string       // such as en; empty: not said
	License  string       // such as cc-by-4.0; empty: left open
	Run      *history.Run // nil: not known
	Row      *results.Row // of the checkpoint in the run's table; nil: none
	Command  string       // that writes the folder
}

// card is a card at work.
type card struct {
	About
	*Model
	Kind, Weights, FileSize, Attention, Parameters   string
	Levels, Hidden, Queries, Values, Reads, Codebook int
	EndOfText                                        string // as the tokenizer calls it
	Results                                          []result
}

// result is a measure of the checkpoint.
type result struct{ Name, Value, Meaning string }

// card is README.md: the model card, with the header that the Hub reads.
func (m *Model) card(about About, size int) ([]byte, error) {
	c := card{About: about, Model: m, Kind: m.kind(), FileSize: results.Size(int64(size)),
		Attention: m.Config.Attention, Levels: 1 << m.Config.Codebook().Bits(), Hidden: m.Config.Hidden().Bits(),
		Queries: m.Config.Queries().Bits(), Values: m.Config.Values().Bits(),
		Reads: m.Config.Reads().Bits(), Codebook: m.Config.Codebook().Bits()}
	if m.Config.Attention == kernels.RWSP.String() {
		c.Attention = fmt.Sprintf("rwsp: a query reads its %d best keys", m.Config.RWSPK)
	}
	weights := 0
	for _, p := range m.Config.Parameters() {
		if len(p.Shape) == 2 {
			weights += p.Size()
		}
	}
	c.Weights = fmt.Sprintf("%.1f million", float64(weights)/1e6)
	var parameters bytes.Buffer
	if len(m.Recipe) > 0 {
		if err := json.Indent(&parameters, m.Recipe, "", "  "); err != nil {
			return nil, err
		}
	}
	c.Parameters = parameters.String()
	if m.Tokenizer != nil {
		c.EndOfText = tokenizer.EndOfTextName(m.Tokenizer)
	}
	c.Results = about.results()
	var b bytes.Buffer
	err := cardTemplate.Execute(&b, c)
	return b.Bytes(), err
}

// kind is what a model of this configuration is called.
func (m *Model) kind() string {
	c := m.Config
	switch {
	case c.HasV77():
		return "v77"
	case c.Attention == kernels.Pointer.String():
		return "v75"
	case c.Attention == kernels.RWSP.String():
		return "v76"
	}
	return "v76 with " + c.Attention + " attention"
}

// results are the row's cells, with what each column means.
func (a About) results() (all []result) {
	if a.Row == nil {
		return nil
	}
	for _, column := range a.Run.Tables[0].Columns {
		if value, ok := a.Row.Cells[column.Key]; ok && value.Value != nil {
			all = append(all, result{column.Name, value.Text, column.Meaning()})
		}
	}
	return all
}

// cell is text as a cell of a table.
func cell(text string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text) }
