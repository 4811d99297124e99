package corpus

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// rowsPerGroup is small so that even a short book has several row groups, as real files do.
const rowsPerGroup = 16

// row is a document with what FineWeb-Edu records about one and differs here. Language is always English with score 1;
// score and int_score, the educational value, are 0: nobody judged these texts.
type row struct {
	text          []byte
	id, url, file string
	tokens        int64
}

// writeFile writes rows to a temporary file beside path and renames it.
func writeFile(path string, rows []row) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".corpus-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed
	defer f.Close()
	if err := writeParquet(f, rows); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writeParquet(w io.Writer, rows []row) error {
	out := file.NewParquetWriter(writerOnly{w}, fineWebEdu(), file.WithWriterProps(parquet.NewWriterProperties(
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithDictionaryDefault(false),
		parquet.WithStats(false),
		parquet.WithCreatedBy("bitnet1"),
	)))
	for len(rows) > 0 {
		n := min(len(rows), rowsPerGroup)
		if err := writeGroup(out.AppendRowGroup(), rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return out.Close()
}

// writerOnly keeps the parquet writer from closing the file.
type writerOnly struct{ io.Writer }

func fineWebEdu() *schema.GroupNode {
	var fields schema.FieldList
	add := func(physical parquet.Type, logical schema.LogicalType, names ...string) {
		for _, name := range names {
			fields = append(fields,
				schema.Must(schema.NewPrimitiveNodeLogical(name, parquet.Repetitions.Optional, logical, physical, -1, -1)))
		}
	}
	add(parquet.Types.ByteArray, schema.StringLogicalType{}, "text", "id", "dump", "url", "file_path", "language")
	add(parquet.Types.Double, schema.NoLogicalType{}, "language_score")
	add(parquet.Types.Int64, schema.NoLogicalType{}, "token_count")
	add(parquet.Types.Double, schema.NoLogicalType{}, "score")
	add(parquet.Types.Int64, schema.NoLogicalType{}, "int_score")
	return schema.MustGroup(schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1))
}

func writeGroup(group file.SerialRowGroupWriter, rows []row) error {
	text := func(of func(row) string) func(file.ColumnChunkWriter, []int16) error {
		return func(c file.ColumnChunkWriter, defined []int16) error {
			values := make([]parquet.ByteArray, len(rows))
			for i, r := range rows {
				values[i] = parquet.ByteArray(of(r))
			}
			_, err := c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, defined, nil)
			return err
		}
	}
	double := func(v float64) func(file.ColumnChunkWriter, []int16) error {
		return func(c file.ColumnChunkWriter, defined []int16) error {
			values := make([]float64, len(rows))
			for i := range values {
				values[i] = v
			}
			_, err := c.(*file.Float64ColumnChunkWriter).WriteBatch(values, defined, nil)
			return err
		}
	}
	integer := func(of func(row) int64) func(file.ColumnChunkWriter, []int16) error {
		return func(c file.ColumnChunkWriter, defined []int16) error {
			values := make([]int64, len(rows))
			for i, r := range rows {
				values[i] = of(r)
			}
			_, err := c.(*file.Int64ColumnChunkWriter).WriteBatch(values, defined, nil)
			return err
		}
	}
	defined := make([]int16, len(rows))
	for i := range defined {
		defined[i] = 1
	}
	for _, write := range []func(file.ColumnChunkWriter, []int16) error{
		text(func(r row) string { return string(r.text) }),
		text(func(r row) string { return r.id }),
		text(func(row) string { return "sample" }),
		text(func(r row) string { return r.url }),
		text(func(r row) string { return r.file }),
		text(func(row) string { return "en" }),
		double(1),
		integer(func(r row) int64 { return r.tokens }),
		double(0),
		integer(func(row) int64 { return 0 }),
	} {
		column, err := group.NextColumn()
		if err != nil {
			return err
		}
		if err := write(column, defined); err != nil {
			return err
		}
		if err := column.Close(); err != nil {
			return err
		}
	}
	return group.Close()
}
