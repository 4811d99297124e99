// Package parquet reads columns of parquet files, whatever their bytes. Reading gives the values of the file or an
// error. It never panics, loops forever or takes more memory than Options allow. If it gives fewer rows than the
// metadata states, it also gives an error with the row group. It verifies the checksums of pages.
//
// The package reads plain, dictionary, delta and byte stream split encodings, in data pages of both versions,
// uncompressed or compressed with snappy, gzip, brotli, zstd, LZ4_RAW or LZ4. It refuses by name what it does not know:
// encryption, LZO, the deprecated bit-packed levels, and columns in other files. It does not write, and does not
// assemble nested records.
//
// The format: https://parquet.apache.org/docs/file-format/. Numbers in the code are those of its parquet.thrift.
package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Options limit the cost of reading a file. The zero value is a good default.
type Options struct {
	// MaxPage is the largest page, in bytes, compressed or not. Default: 128 MiB.
	MaxPage int
	// MaxHeld is the most memory that the open chunks of a file hold, in bytes: compressed and uncompressed pages, and
	// dictionaries. Default: 192 MiB.
	MaxHeld int64
	// MaxValue is the longest value in the encoding DELTA_BYTE_ARRAY, in bytes. Such a value takes memory beside that of
	// its page. Default: 64 MiB.
	MaxValue int
	// MaxWork is the most work of reading: bytes of pages, levels, and bytes of values. A few bytes of a file can stand
	// for billions of values. Default: 64 Mi and 8192 for each byte of the file.
	MaxWork int64
}

// The limits of a footer bound its memory to some tens of megabytes. Real files stay far below them.
const (
	maxFooter  = 64 << 20 // bytes
	maxColumns = 1 << 14  // elements of the schema
	maxChunks  = 1 << 20  // columns times row groups
	maxNesting = 64       // of the schema
)

// File is an open parquet file. It is safe for concurrent use if its reader is.
type File struct {
	in      io.ReaderAt
	size    int64
	options Options
	rows    int64
	schema  *Node
	columns []Column
	groups  []group
	work    atomic.Int64 // done by chunks, at most options.MaxWork
	held    atomic.Int64 // by chunks, at most options.MaxHeld
	zstd    sync.Pool    // of *zstd.Decoder
}

// group is a row group.
type group struct {
	rows   int64
	chunks []chunkInfo // one for each column
}

// Column is a leaf of the schema.
type Column struct {
	Path    string // names from the root, joined by dots
	Type    Type
	Logical Logical
	MaxDef  int // definition level of a value that is not null: the optional and repeated fields on its path
	MaxRep  int // repeated fields on its path

	width int // of a fixed-length byte array
}

// Node is an element of the schema: a column, or a group of further elements.
type Node struct {
	Name     string
	Logical  LogicalKind // of a group: List, Map or None
	Repeated bool        // it occurs any number of times
	Children []*Node     // of a group
	Column   int         // index into File.Columns; -1 for a group
}

// Type is a column's physical type.
type Type int8

// The physical types of the format.
const (
	Boolean Type = iota
	Int32
	Int64
	Int96
	Float
	Double
	ByteArray
	FixedLenByteArray
)

var typeNames = [...]string{"BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY",
	"FIXED_LEN_BYTE_ARRAY"}

func (t Type) String() string {
	if t < 0 || int(t) >= len(typeNames) {
		return fmt.Sprintf("type %d", int8(t))
	}
	return typeNames[t]
}

// Magic is how a parquet file begins and ends.
const Magic = "PAR1"

// Open reads the footer of a file of the given size.
func Open(in io.ReaderAt, size int64, o Options) (*File, error) {
	if o.MaxPage <= 0 {
		o.MaxPage = 128 << 20
	}
	if o.MaxHeld <= 0 {
		o.MaxHeld = 192 << 20
	}
	if o.MaxValue <= 0 {
		o.MaxValue = 64 << 20
	}
	if o.MaxWork <= 0 {
		o.MaxWork = 1<<26 + 1<<13*size
	}
	if size < 12 {
		return nil, fmt.Errorf("parquet: %d bytes are too few for a file: it may be truncated", size)
	}
	tail := make([]byte, 8)
	if _, err := in.ReadAt(tail, size-8); err != nil {
		return nil, fmt.Errorf("parquet: %w", noEOF(err))
	}
	switch string(tail[4:]) {
	case Magic:
	case "PARE":
		return nil, errors.New("parquet: the footer is encrypted: encrypted files are not supported")
	default:
		return nil, errors.New("parquet: the file does not end like a parquet file: it may be truncated")
	}
	length := int64(binary.LittleEndian.Uint32(tail))
	if length > size-12 || length > maxFooter {
		return nil, fmt.Errorf("parquet: a footer of %d bytes in a file of %d (the limit is %d): it may be truncated",
			length, size, maxFooter)
	}
	footer := make([]byte, length)
	if _, err := in.ReadAt(footer, size-8-length); err != nil {
		return nil, fmt.Errorf("parquet: %w", noEOF(err))
	}
	f := &File{in: in, size: size - 8 - length, options: o}
	if err := f.readFooter(footer); err != nil {
		return nil, fmt.Errorf("parquet: footer: %w", err)
	}
	return f, nil
}

// Rows is the number of rows of the file.
func (f *File) Rows() int64 { return f.rows }

// Groups is the number of row groups.
func (f *File) Groups() int { return len(f.groups) }

// GroupRows is the number of rows of row group i in [0, Groups).
func (f *File) GroupRows(i int) int64 { return f.groups[i].rows }

// Columns lists the leaves of the schema.
func (f *File) Columns() []Column { return f.columns }

// Schema is the root of the schema, which is a group.
func (f *File) Schema() *Node { return f.schema }

// did counts n more units of work.
func (f *File) did(n int64) error {
	if work := f.work.Add(n); work > f.options.MaxWork {
		return fmt.Errorf("its values take more than %d times the bytes of the file (%d in all): a file that unpacks "+
			"to so much is refused", 1<<13, f.options.MaxWork)
	}
	return nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
