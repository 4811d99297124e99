package dataset

import (
	"errors"
	"io"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
)

// arrowWriter writes an uncompressed Arrow IPC file to a plain writer.
type arrowWriter struct{ file *ipc.FileWriter }

func newArrowWriter(w io.Writer, schema *arrow.Schema) (*arrowWriter, error) {
	file, err := ipc.NewFileWriter(&position{w: w}, ipc.WithSchema(schema))
	if err != nil {
		return nil, err
	}
	return &arrowWriter{file}, nil
}

// write writes what the builder has collected and empties it.
func (a *arrowWriter) write(b *array.RecordBuilder) error {
	record := b.NewRecord()
	defer record.Release()
	return a.file.Write(record)
}

func (a *arrowWriter) close() error { return a.file.Close() }

// position adds to a writer what the Arrow module asks for: the current position. It seeks nowhere.
type position struct {
	w io.Writer
	n int64
}

func (p *position) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}

func (p *position) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.New("an Arrow file is written in order")
	}
	return p.n, nil
}
