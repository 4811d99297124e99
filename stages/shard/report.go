package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/event"
)

// maxExamples bounds the examples in a report.
const maxExamples = 20

// report accounts for every row of every source. It is the same whenever and wherever the dataset is made.
type report struct {
	Format     string               `json:"format"` // bitnet1.dataset-report.v1
	Tokenizer  string               `json:"tokenizer"`
	Rows       int64                `json:"rows"`
	Documents  int64                `json:"documents"` // in the dataset
	Bytes      int64                `json:"bytes"`     // of their text
	Tokens     int64                `json:"tokens"`    // of their text
	Nulls      int64                `json:"nulls"`     // rows without a text
	Filtered   int64                `json:"filtered"`  // rows that did not meet all filters
	Invalid    int64                `json:"invalid_utf8"`
	Counted    int64                `json:"counted"`       // documents whose file states their number of GPT-2 tokens
	Miscounted int64                `json:"miscounted"`    // documents whose file states a wrong number
	Refused    int                  `json:"refused"`       // files
	Odd        int64                `json:"odd,omitempty"` // rows that cannot be read, such as a text that is a number
	Sources    []sourceReport       `json:"sources"`
	Duplicates *dataset.Duplicates  `json:"duplicates,omitempty"`
	Examples   []seal.Duplicate     `json:"duplicate_examples,omitempty"`
	Mixture    []dataset.Share      `json:"mixture,omitempty"`
	Splits     map[string]splitFact `json:"splits"`
}

// sourceReport accounts for the rows of one file.
type sourceReport struct {
	Name      string `json:"name"`
	Rows      int64  `json:"rows"`
	Documents int64  `json:"documents"` // before duplicates were left out and the mixture was made
	Bytes     int64  `json:"bytes"`
	Tokens    int64  `json:"tokens"`
	Nulls     int64  `json:"nulls"`
	Filtered  int64  `json:"filtered"`
	Invalid   int64  `json:"invalid_utf8"`
	Refused   string `json:"refused,omitempty"` // why

	Odd     int64    `json:"odd,omitempty"`
	OddRows []string `json:"odd_rows,omitempty"` // the first of them, and why
}

type splitFact struct {
	Documents int64 `json:"documents"`
	Sequences int64 `json:"sequences"`
	Tokens    int64 `json:"tokens"` // targets
	Shards    int   `json:"shards"`
}

func newReport(in []event.TokensWritten) *report {
	r := &report{Format: "bitnet1.dataset-report.v1", Splits: map[string]splitFact{}}
	for _, e := range in {
		r.Rows += e.Rows
		r.Nulls += e.Nulls
		r.Filtered += e.Filtered
		r.Invalid += e.InvalidUTF8
		r.Counted += e.Counted
		r.Miscounted += e.Miscounted
		r.Odd += e.Odd
		if e.Refused != "" {
			r.Refused++
		}
		r.Sources = append(r.Sources, sourceReport{
			e.Source, e.Rows, e.Documents, e.Bytes, e.Tokens, e.Nulls, e.Filtered, e.InvalidUTF8, e.Refused, e.Odd, e.OddRows,
		})
	}
	return r
}

// withRows adds the numbers of rows to an error.
func (r *report) withRows(err error) error {
	if r.Rows == 0 {
		return fmt.Errorf("%w (no rows were read; number of files: %d)", err, len(r.Sources))
	}
	return fmt.Errorf("%w (files: %d; rows: %d; without a text: %d; not meeting all filters: %d; files left out: %d)",
		err, len(r.Sources), r.Rows, r.Nulls, r.Filtered, r.Refused)
}

func (r *report) addDuplicate(d seal.Duplicate) {
	if len(r.Examples) < maxExamples {
		d.Text = strings.ToValidUTF8(d.Text, "\uFFFD")
		r.Examples = append(r.Examples, d)
	}
}

// complete adds the numbers of the sealed dataset.
func (r *report) complete(m *dataset.Manifest) {
	r.Tokenizer, r.Duplicates, r.Mixture = m.Tokenizer.Name, m.Duplicates, m.Mixture
	for _, s := range m.Sources {
		r.Documents += s.Documents
		r.Bytes += s.Bytes
		r.Tokens += s.Tokens
	}
	for name, s := range map[string]dataset.SplitInfo{"train": m.Splits.Train, "validation": m.Splits.Validation} {
		r.Splits[name] = splitFact{s.Documents, s.Sequences, s.Tokens, len(s.Shards)}
	}
}

func (r *report) json() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(r)
	return b.Bytes(), err
}

// markdown is the report as a page. Its bytes are an artifact: a change of its words needs a new Version of the stage.
func (r *report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Dataset\n\n%d documents of %d files: %d bytes of text, %d tokens of %s", r.Documents,
		len(r.Sources), r.Bytes, r.Tokens, r.Tokenizer)
	if r.Tokens > 0 {
		fmt.Fprintf(&b, ", %.3f bytes a token", float64(r.Bytes)/float64(r.Tokens))
	}
	b.WriteString(".\n\n| split | documents | sequences | targets | shards |\n|---|---|---|---|---|\n")
	for _, name := range []string{"train", "validation"} {
		s := r.Splits[name]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", name, s.Documents, s.Sequences, s.Tokens, s.Shards)
	}
	if v := r.Splits["validation"]; v.Documents == 0 && v.Sequences > 0 {
		b.WriteString("\nThe only document is divided: its end is the validation split.\n")
	}
	r.writeRows(&b)
	r.writeMixture(&b)
	r.writeRefused(&b)
	r.writeOdd(&b)
	r.writeExamples(&b)
	b.WriteString("\nWhat the steps took is no part of a dataset: it lies in times/dataset.json beside this report, and " +
		"`task data:inspect -- MANIFEST` prints it.\n")
	b.WriteString("\n## Sources\n\n| source | rows | documents | bytes | tokens | without text | filtered " +
		"|\n|---|---|---|---|---|---|---|\n")
	for _, s := range r.Sources {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d |\n", cell(s.Name), s.Rows, s.Documents, s.Bytes, s.Tokens,
			s.Nulls, s.Filtered)
	}
	return b.Bytes()
}

// writeRows accounts for all rows, from those that were read to the documents of the dataset.
func (r *report) writeRows(b *bytes.Buffer) {
	b.WriteString("\n## What became of the rows\n\n| | |\n|---|---|\n")
	if r.Rows > 0 { // token batches that a user names say nothing of the rows they were made of
		fmt.Fprintf(b, "| rows read | %d |\n| without a text | %d |\n| that meet not all filters | %d |\n", r.Rows, r.Nulls,
			r.Filtered)
	}
	if r.Odd > 0 {
		fmt.Fprintf(b, "| that cannot be understood | %d |\n", r.Odd)
	}
	if d := r.Duplicates; d != nil {
		if len(d.Known) > 0 {
			fmt.Fprintf(b, "| texts of %d earlier datasets | %d |\n", len(d.Known), d.Earlier)
		}
		fmt.Fprintf(b, "| exact duplicates | %d |\n", d.Exact)
		if d.Method == seal.NearDuplicates {
			fmt.Fprintf(b, "| near duplicates (similarity from %g on) | %d |\n", *d.Similarity, d.Near)
		}
	}
	for _, s := range r.Mixture {
		fmt.Fprintf(b, "| left out for the share of %s | %d |\n", s.Sources, s.Left)
	}
	fmt.Fprintf(b, "| documents in the dataset | %d |\n\n", r.Documents)
	fmt.Fprintf(b, "%d documents are not valid UTF-8; their bytes are kept.\n", r.Invalid)
	if r.Counted > 0 {
		fmt.Fprintf(b, "The files say of %d documents how many GPT-2 tokens they have; for %d it is "+
			"another number than ours.\n", r.Counted, r.Miscounted)
	}
}

func (r *report) writeMixture(b *bytes.Buffer) {
	if len(r.Mixture) == 0 {
		return
	}
	b.WriteString("\n## Mixture\n\n| sources | weight | documents | tokens | share of the tokens " +
		"|\n|---|---|---|---|---|\n")
	for _, s := range r.Mixture {
		fmt.Fprintf(b, "| %s | %g | %d | %d | %.2f %% |\n", cell(s.Sources), s.Weight, s.Documents, s.Tokens,
			100*float64(s.Tokens)/float64(r.Tokens))
	}
}

func (r *report) writeRefused(b *bytes.Buffer) {
	if r.Refused == 0 {
		return
	}
	b.WriteString("\n## Files left out\n\n| file | reason |\n|---|---|\n")
	for _, s := range r.Sources {
		if s.Refused != "" {
			fmt.Fprintf(b, "| %s | %s |\n", cell(s.Name), cell(s.Refused))
		}
	}
}

// writeOdd names rows that were left out because they cannot be read.
func (r *report) writeOdd(b *bytes.Buffer) {
	if r.Odd == 0 {
		return
	}
	b.WriteString("\n## Rows that cannot be understood\n\n| file | rows | the first of them |\n|---|---|---|\n")
	for _, s := range r.Sources {
		if s.Odd > 0 {
			fmt.Fprintf(b, "| %s | %d | %s |\n", cell(s.Name), s.Odd, cell(strings.Join(s.OddRows, "; ")))
		}
	}
}

func (r *report) writeExamples(b *bytes.Buffer) {
	if len(r.Examples) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Duplicates\n\nThe first %d:\n\n| left out | because of | similarity | it "+
		"begins |\n|---|---|---|---|\n", len(r.Examples))
	for _, d := range r.Examples {
		of := d.OfDocument
		if of == "" {
			of = "texts " + digest.Short(d.OfSource)
		}
		fmt.Fprintf(b, "| %s | %s | %.2f | %s |\n", cell(d.Document), cell(of), d.Similarity, cell(d.Text))
	}
}

// cell makes a text fit a cell of a table.
func cell(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > 200 {
		s = string(runes[:200]) + "…"
	}
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(s)
}
