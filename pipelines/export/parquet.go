package main

import (
	"io"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"bitnet1/shared/measure/history"
)

// schema is the columns of the Parquet file, a row for each number (docs/recipes/export.md).
var schema = arrow.NewSchema([]arrow.Field{
	{Name: "run", Type: arrow.BinaryTypes.String},
	{Name: "metric", Type: arrow.BinaryTypes.String},
	{Name: "unit", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "step", Type: arrow.PrimitiveTypes.Int64},
	{Name: "tokens", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "seconds", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "layer", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	{Name: "head", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	{Name: "parameters", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "value", Type: arrow.PrimitiveTypes.Float64},
}, nil)

func writeParquet(w io.Writer, run *history.Run, all []metric) error {
	rows := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer rows.Release()
	text := func(i int, v string) {
		b := rows.Field(i).(*array.StringBuilder)
		if v == "" {
			b.AppendNull()
			return
		}
		b.Append(v)
	}
	for _, m := range all {
		text(0, run.ID)
		text(1, m.Name)
		text(2, m.Unit)
		rows.Field(3).(*array.Int64Builder).Append(m.Step)
		rows.Field(4).(*array.Int64Builder).AppendValues([]int64{m.Tokens}, []bool{m.Tokens >= 0})
		rows.Field(5).(*array.Float64Builder).AppendValues([]float64{m.Seconds}, []bool{!math.IsNaN(m.Seconds)})
		rows.Field(6).(*array.Int32Builder).AppendValues([]int32{m.Layer}, []bool{m.Layer >= 0})
		rows.Field(7).(*array.Int32Builder).AppendValues([]int32{m.Head}, []bool{m.Layer >= 0})
		text(8, m.Parameters)
		rows.Field(9).(*array.Float64Builder).Append(m.Value)
	}
	record := rows.NewRecord()
	defer record.Release()
	file, err := pqarrow.NewFileWriter(schema, w, parquet.NewWriterProperties(
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithDictionaryDefault(true)), pqarrow.DefaultWriterProps())
	if err != nil {
		return err
	}
	if err := file.Write(record); err != nil {
		return err
	}
	return file.Close()
}
