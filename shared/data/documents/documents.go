// Package documents reads the documents of one file, whatever its format: parquet, JSON Lines, a JSON list, CSV, TSV or
// plain text, and all but parquet also compressed with gzip or zstd. Open finds the format by the file's first bytes
// and its name, Fields says which columns make a document, Filter leaves rows out, and Template makes texts of
// conversations.
//
// A new format is a row in the table formats and a rowReader. A format whose rows are equivalent to JSON objects needs
// only an objectScanner.
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
	ID     string // from the file, otherwise "<source>#<row>"; always valid UTF-8
	Source string // name of the file it came from
	Row    int64  // from 0: a row of parquet or of a table, a line of JSON Lines, an element of a list
	Text   []byte // not always valid UTF-8; valid until the next document is read
	Tokens int64  // number of GPT-2 tokens that FineWeb's column token_count states; -1: no such column
}

// Count says what became of the rows read so far: Rows = Documents + Nulls + Filtered + Odd.
type Count struct {
	Rows        int64 `json:"rows"`
	Documents   int64 `json:"documents"`
	Bytes       int64 `json:"bytes"`        // of the documents' text
	Nulls       int64 `json:"nulls"`        // rows without a text; no documents
	Filtered    int64 `json:"filtered"`     // rows that a filter rejects; no documents
	Odd         int64 `json:"odd"`          // rows that cannot be read; no documents
	InvalidUTF8 int64 `json:"invalid_utf8"` // documents whose text is not valid UTF-8; the bytes stay as they are
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

// Options say how documents are read. The zero value is a good default.
type Options struct {
	// Source names the file in documents and manifests. Default: the base name of the path.
	Source string
	// Format is the format of a file that is not parquet. Default: FormatAuto.
	Format string
	// Split says how plain text is divided into documents: SplitFile, SplitBlank, SplitLine, or the text between two.
	// Default: SplitFile.
	Split string
	// Fields says which columns make a document.
	Fields Fields
	// Template says how conversations become text.
	Template Template
	// Filters are conditions. Only a row that meets all of them becomes a document.
	Filters []Filter
	// MaxDocument is the size of the longest text, in bytes. In JSON Lines it also limits a line. Default: 16 MiB.
	MaxDocument int
	// From is the first row to read, as Document.Row counts rows. Rows before From are skipped.
	From int64
	// At, if set, is called before every row group and every 65,536 rows, with the row group (-1 if the file is not
	// parquet) and the next row.
	At func(group int, row int64)
	// Odd, if set, is called for every row that cannot be read, with the number of the row and the reason. The reason
	// names the place in the file.
	Odd func(row int64, why string)

	maxWork int64 // limit on the bytes that a file unpacks to; 0: a multiple of its size
}

// oddRow is the error of a row that cannot be read. The row is counted, and reading continues with the next row.
type oddRow struct{ error }

func (o oddRow) Unwrap() error { return o.error }

// atRows is the number of rows between two calls of At, a power of two.
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
	// next returns the next row or io.EOF. The row is valid until the next call. With an oddRow only the number of the row
	// is valid.
	next() (row, error)
	// skip skips the rows before number n, or all rows if there are fewer.
	skip(n int64) error
	// total is the number of rows that the file states, or -1.
	total() int64
}

// row is a row of any format. A row without a text and without turns is a null.
type row struct {
	number int64
	id     []byte
	text   []byte
	turns  []turn
	tokens int64  // -1: not stated
	cells  []cell // one for each filter
}

// Open opens a file of documents. The first bytes of the file and the extension of its name decide about the format. A
// file without bytes has no documents; it is an error only if a file with its extension cannot be empty.
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
	return openFormat(in, kind, o)
}

// Rows is the number of rows that the file states, or -1 if its format does not state it.
func (d *Reader) Rows() int64 { return d.rows.total() }

// Count counts the rows read so far, from Options.From on.
func (d *Reader) Count() Count { return d.count }

// Next is the first row that was not read, where another reader can continue.
func (d *Reader) Next() int64 { return d.next }

// Filtering is the time spent in filters.
func (d *Reader) Filtering() time.Duration { return d.filtering }

// Close closes the file.
func (d *Reader) Close() error { return d.file.Close() }

// All reads the documents of the file in order, once. An error ends the sequence. Rows that cannot be read are an error
// only if the file has no document at all.
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

// read reads the next row. ok is false for a row that is no document.
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

// compose makes the document of a row. ok is false for a row that is no document.
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

// guard turns a panic of a decoder into an error: a file may contain anything, and a defect of a decoder must not end
// the process.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a defect of the reader, or a corrupt file: %v", r)
		}
	}()
	return f()
}
