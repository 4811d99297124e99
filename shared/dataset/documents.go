// Package dataset holds the data formats between raw documents and a training step: readers of document files, token
// batches, shards of fixed-length sequences, the manifest that names them, and the order in which they are read.
//
// It knows nothing of events, stores or models: files come in as paths and go out through writers the caller gives.
// Whatever a file contains, reading it yields an error and not a crash, as long as nobody shortens it meanwhile.
package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Document is one text of a source.
type Document struct {
	ID     string // as the file has it, else "<source>#<row>"; always valid UTF-8
	Source string // name of the file it came from
	Row    int64  // row of a parquet file, line of a JSONL file, from 0
	Text   []byte // not always valid UTF-8; valid until the next document is read
}

// Count says what became of the rows read so far: Rows = Documents + Nulls.
type Count struct {
	Rows        int64
	Documents   int64
	Bytes       int64 // of the documents' text
	Nulls       int64 // rows without a text, skipped
	InvalidUTF8 int64 // documents whose text is not valid UTF-8, kept byte for byte
}

// DocumentOptions are the choices in reading documents. The zero value is a good default.
type DocumentOptions struct {
	// Source names the file in documents and manifests. Default: the base name of the path.
	Source string
	// MaxDocument is the longest text accepted, in bytes; for JSONL, the longest line. Default: 64 MiB.
	MaxDocument int
}

// Documents reads the documents of one file.
type Documents struct {
	path, source string
	rows         rowReader
	count        Count
	file         *os.File
}

// rowReader reads the rows of one format.
type rowReader interface {
	// next returns the next row or io.EOF. What it returns is valid until the next call.
	next() (row, error)
	// total is the number of rows the file claims, or -1.
	total() int64
}

// row is a row of any format. A nil text is a null.
type row struct {
	number int64
	id     []byte
	text   []byte
}

// OpenDocuments opens a file of documents. What it is shows in its first bytes: parquet, or JSON Lines, which may be
// compressed with gzip or zstd. Columns are found by name, others are ignored:
//
//	text                             FineWeb-Edu and most others
//	conversations, messages          lists of turns: {from, value} or {role, content}
//	input and output                 a prompt and its answer
//	id                               optional: a string or an integer
//
// The first of these that a file has gives the text; see turns for how a conversation becomes one.
func OpenDocuments(path string, o DocumentOptions) (*Documents, error) {
	if o.Source == "" {
		o.Source = filepath.Base(path)
	}
	if o.MaxDocument <= 0 {
		o.MaxDocument = 64 << 20
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	d := &Documents{path: path, source: strings.ToValidUTF8(o.Source, "\uFFFD"), file: f}
	if d.rows, err = openRows(f, o.MaxDocument); err != nil {
		f.Close()
		return nil, fmt.Errorf("documents of %s: %w", path, err)
	}
	return d, nil
}

func openRows(f *os.File, limit int) (rowReader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a regular file")
	}
	if info.Size() == 0 {
		return nil, errors.New("the file is empty: fetch it again")
	}
	start := make([]byte, 4)
	n, err := f.ReadAt(start, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if bytes.Equal(start[:n], []byte("PAR1")) {
		return openParquet(f, info.Size(), limit)
	}
	return openJSONL(f, start[:n], limit)
}

// Rows is the number of rows the file claims to have, or -1 where that is not known in advance.
func (d *Documents) Rows() int64 { return d.rows.total() }

// Count is what was read so far.
func (d *Documents) Count() Count { return d.count }

// Close closes the file.
func (d *Documents) Close() error { return d.file.Close() }

// All reads the file's documents in order. An error ends the sequence. It can be walked once.
func (d *Documents) All() iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		for {
			r, err := d.rows.next()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Document{}, fmt.Errorf("documents of %s: %w", d.path, err))
				return
			}
			d.count.Rows++
			if r.text == nil {
				d.count.Nulls++
				continue
			}
			d.count.Documents++
			d.count.Bytes += int64(len(r.text))
			if !utf8.Valid(r.text) {
				d.count.InvalidUTF8++
			}
			if !yield(Document{ID: d.id(r), Source: d.source, Row: r.number, Text: r.text}, nil) {
				return
			}
		}
	}
}

func (d *Documents) id(r row) string {
	if len(r.id) == 0 {
		return fmt.Sprintf("%s#%d", d.source, r.number)
	}
	return strings.ToValidUTF8(string(r.id), "\uFFFD")
}

// turn is one turn of a conversation.
type turn struct{ role, text []byte }

// roles maps the names of one convention to those of the other.
var roles = map[string]string{"human": "user", "gpt": "assistant"}

// turns writes a conversation as plain text: "role: text" for every turn, with an empty line between two. A prompt with
// its answer is a conversation of user and assistant.
func turns(dst []byte, list []turn) []byte {
	for i, t := range list {
		if i > 0 {
			dst = append(dst, "\n\n"...)
		}
		if name, ok := roles[string(t.role)]; ok {
			dst = append(dst, name...)
		} else {
			dst = append(dst, t.role...)
		}
		dst = append(dst, ": "...)
		dst = append(dst, t.text...)
	}
	return dst
}

// missingText is the error for a file none of whose columns holds text.
func missingText(found []string) error {
	return fmt.Errorf("no column of text among %s: rename the one that holds the text to \"text\" (also understood: conversations, messages, input with output)",
		strings.Join(found, ", "))
}
