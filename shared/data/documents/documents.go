// Package documents reads the documents of one file, whatever its format: parquet, JSON Lines, a JSON list, CSV, TSV or
// plain text, and all but parquet also compressed with gzip or zstd. Open finds the format by the file's first bytes
// and its name, Fields says which columns make a document, Filter leaves rows out, and Template makes texts of
// conversations.
//
// A new format is a rowReader, beside a line in openText; a format whose rows mean the same as JSON objects is only an
// objectScanner.
//
// The package does not find files (see package source) and knows no tokens. Whatever a file contains, reading it yields
// an error and not a crash, as long as nobody shortens the file meanwhile.
package documents

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"bitnet1/shared/filetype"
)

// Document is one text of a source.
type Document struct {
	ID     string // as the file has it, else "<source>#<row>"; always valid UTF-8
	Source string // name of the file it came from
	Row    int64  // row of parquet or a table, line of JSON Lines, element of a list, document of plain text; from 0
	Text   []byte // not always valid UTF-8; valid until the next document is read
	Tokens int64  // how many tokens the file says it has, by FineWeb's column token_count; -1: it does not say
}

// Count says what became of the rows read so far: Rows = Documents + Nulls + Filtered + Odd.
type Count struct {
	Rows        int64 `json:"rows"`
	Documents   int64 `json:"documents"`
	Bytes       int64 `json:"bytes"`        // of the documents' text
	Nulls       int64 `json:"nulls"`        // rows without a text, left out
	Filtered    int64 `json:"filtered"`     // rows that do not meet a filter, left out
	Odd         int64 `json:"odd"`          // rows that cannot be understood, left out
	InvalidUTF8 int64 `json:"invalid_utf8"` // documents whose text is not valid UTF-8, kept byte for byte
}

// Add returns the sum of two counts.
func (c Count) Add(d Count) Count {
	return Count{
		Rows: c.Rows + d.Rows, Documents: c.Documents + d.Documents, Bytes: c.Bytes + d.Bytes,
		Nulls: c.Nulls + d.Nulls, Filtered: c.Filtered + d.Filtered, Odd: c.Odd + d.Odd,
		InvalidUTF8: c.InvalidUTF8 + d.InvalidUTF8,
	}
}

// Sub returns the difference of two counts.
func (c Count) Sub(d Count) Count {
	return Count{
		Rows: c.Rows - d.Rows, Documents: c.Documents - d.Documents, Bytes: c.Bytes - d.Bytes,
		Nulls: c.Nulls - d.Nulls, Filtered: c.Filtered - d.Filtered, Odd: c.Odd - d.Odd,
		InvalidUTF8: c.InvalidUTF8 - d.InvalidUTF8,
	}
}

// Options are the choices in reading documents. The zero value is a good default.
type Options struct {
	// Source names the file in documents and manifests. Default: the base name of the path.
	Source string
	// Format is one of the formats, for a file that is not parquet. Default: FormatAuto.
	Format string
	// Split says how plain text is divided into documents: SplitFile, SplitBlank, SplitLine, or the text between two.
	// Default: SplitFile.
	Split string
	// Fields says which columns make a document.
	Fields Fields
	// Template says how conversations become text.
	Template Template
	// Filters are the conditions of which a row must meet all.
	Filters []Filter
	// MaxDocument is the longest text accepted, in bytes; for JSONL, the longest line. Default: 16 MiB.
	MaxDocument int
	// From is the row to begin with, as Document.Row counts; what is before it is passed over.
	From int64
	// At, if set, is told where reading is, before every row group and every 65,536 rows: the row group of a parquet
	// file, -1 in any other, and the next row.
	At func(group int, row int64)
	// Odd, if set, is told of every row that cannot be understood: its number, and why, with its place for people.
	Odd func(row int64, why string)

	maxWork int64 // how much a file may unpack to; 0: what its size allows
}

// oddRow is the error of a row that cannot be understood: it is counted and left out, and reading goes on behind it.
type oddRow struct{ error }

func (o oddRow) Unwrap() error { return o.error }

// atRows is how many rows are read between two calls of At; a power of two.
const atRows = 1 << 16

func (o Options) at(group int, row int64) {
	if o.At != nil {
		o.At(group, row)
	}
}

// Validate reports options that contradict themselves.
func (o Options) Validate() error {
	return errors.Join(validateFormat(o.Format), o.Fields.validate(), o.Template.validate())
}

// Reader reads the documents of one file.
type Reader struct {
	options Options
	rows    rowReader
	count   Count
	next    int64
	odd     error // of the first odd row
	text    []byte
	file    *os.File

	filtering time.Duration
}

// rowReader reads the rows of one format.
type rowReader interface {
	// next returns the next row or io.EOF. What it returns is valid until the next call. Of an oddRow the number alone
	// is.
	next() (row, error)
	// skip passes over rows up to number n; fewer if there are not so many.
	skip(n int64) error
	// total is the number of rows the file claims, or -1.
	total() int64
}

// row is a row of any format. One without a text and without turns is a null.
type row struct {
	number int64
	id     []byte
	text   []byte
	turns  []turn
	tokens int64  // -1: not said
	cells  []cell // one a filter
}

// Open opens a file of documents. What it is shows in its first bytes and the extension of its name: parquet, or JSON
// Lines, a JSON list, a table or plain text, which may be compressed with gzip or zstd. See Fields for which columns
// are read. A file without bytes has no documents, unless its name says that there must be some.
func Open(path string, o Options) (*Reader, error) {
	if o.Source == "" {
		o.Source = filepath.Base(path)
	}
	if o.MaxDocument <= 0 {
		o.MaxDocument = 16 << 20
	}
	o.Source = strings.ToValidUTF8(o.Source, "\uFFFD")
	o.Template.ensureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("documents of %s: %w", o.Source, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	d := &Reader{options: o, file: f, next: o.From}
	if d.rows, err = openRows(f, o); err != nil {
		f.Close()
		return nil, fmt.Errorf("documents of %s: %w", o.Source, err)
	}
	return d, nil
}

func openRows(f *os.File, o Options) (rowReader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	what := map[string]string{".parquet": "parquet", ".gz": "gzip", ".zst": "zstd"}[filepath.Ext(o.Source)]
	if info.Size() == 0 && what != "" {
		return nil, fmt.Errorf("the file is empty, which no %s file is: fetch it again", what)
	}
	start := make([]byte, filetype.Sample)
	n, err := f.ReadAt(start, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	kind := filetype.Of(start[:n])
	if err := refuse(kind); err != nil {
		return nil, err
	}
	if kind == filetype.Parquet {
		return openParquet(f, info.Size(), o)
	}
	in, kind, err := unpack(f, kind, cmp.Or(o.maxWork, unpackedBytes+unpackedPerByte*info.Size()))
	if err != nil {
		return nil, err
	}
	return openText(in, kind, o)
}

// Rows is the number of rows the file claims to have, or -1 where that is not known in advance.
func (d *Reader) Rows() int64 { return d.rows.total() }

// Count is what was read so far, from Options.From on.
func (d *Reader) Count() Count { return d.count }

// Next is the number of the row after the last one read, or Options.From: where to go on with another reader.
func (d *Reader) Next() int64 { return d.next }

// Filtering is the time that conditions have taken, by the clock and of a processor alike: they wait for nothing.
func (d *Reader) Filtering() time.Duration { return d.filtering }

// Close closes the file.
func (d *Reader) Close() error { return d.file.Close() }

// All reads the file's documents in order. An error ends the sequence. It can be walked once. Rows that cannot be
// understood are no error as long as there are documents.
func (d *Reader) All() iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		if d.options.From > 0 {
			if err := guard(func() error { return d.rows.skip(d.options.From) }); err != nil {
				yield(Document{}, fmt.Errorf("documents of %s: %w", d.options.Source, err))
				return
			}
		}
		for {
			document, ok, err := d.read()
			if err == io.EOF && d.count.Documents == 0 && d.options.From == 0 {
				err = cmp.Or(d.odd, err)
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Document{}, fmt.Errorf("documents of %s: %w", d.options.Source, err))
				return
			}
			if ok && !yield(document, nil) {
				return
			}
		}
	}
}

// read reads the next row. It reports false for one that makes no document.
func (d *Reader) read() (document Document, ok bool, err error) {
	var r row
	err = guard(func() error {
		r, err = d.rows.next()
		return err
	})
	if err == nil {
		document, ok, err = d.compose(r)
	}
	odd := errors.As(err, new(oddRow))
	if err != nil && !odd {
		return document, false, err
	}
	d.count.Rows++
	d.next = r.number + 1
	if odd {
		d.count.Odd++
		d.odd = cmp.Or(d.odd, err)
		if d.options.Odd != nil {
			d.options.Odd(r.number, err.Error())
		}
		return document, false, nil
	}
	return document, ok, nil
}

// compose makes the row's document. It reports false for a row that makes none.
func (d *Reader) compose(r row) (document Document, ok bool, err error) {
	if r.text == nil && len(r.turns) == 0 {
		d.count.Nulls++
		return document, false, nil
	}
	meets, err := d.filter(r)
	if err != nil {
		return document, false, oddRow{fmt.Errorf("row %d: %w", r.number, err)}
	}
	if !meets {
		d.count.Filtered++
		return document, false, nil
	}
	text := r.text
	if text == nil {
		if text, err = d.options.Template.write(d.text[:0], r.turns); err != nil {
			return document, false, oddRow{fmt.Errorf("row %d: %w", r.number, err)}
		}
		d.text = text
	}
	if len(text) > d.options.MaxDocument {
		return document, false, oddRow{fmt.Errorf("row %d: a text of %d bytes, more than the limit of %d", r.number,
			len(text), d.options.MaxDocument)}
	}
	d.count.Documents++
	d.count.Bytes += int64(len(text))
	if !utf8.Valid(text) {
		d.count.InvalidUTF8++
	}
	return Document{ID: d.id(r), Source: d.options.Source, Row: r.number, Text: text, Tokens: r.tokens}, true, nil
}

// filter tells whether the row meets all conditions.
func (d *Reader) filter(r row) (meets bool, err error) {
	if len(d.options.Filters) == 0 {
		return true, nil
	}
	started := time.Now()
	defer func() { d.filtering += time.Since(started) }()
	for i, f := range d.options.Filters {
		if meets, err := f.meets(r.cells[i]); err != nil || !meets {
			return false, err
		}
	}
	return true, nil
}

func (d *Reader) id(r row) string {
	if len(r.id) == 0 {
		return fmt.Sprintf("%s#%d", d.options.Source, r.number)
	}
	return strings.ToValidUTF8(string(r.id), "\uFFFD")
}

// guard turns a panic of a decoder into an error: what files hold is nobody's promise, and a decoder's defect must not
// end the process that met it.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a defect of the reader, or a corrupt file: %v", r)
		}
	}()
	return f()
}
