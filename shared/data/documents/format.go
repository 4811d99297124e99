package documents

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"bitnet1/shared/filetype"
)

// The formats beside parquet. A parquet file is always recognized by its first bytes.
const (
	FormatAuto  = ""      // by the name's extension and the first bytes
	FormatJSONL = "jsonl" // a JSON object a line
	FormatJSON  = "json"  // a JSON list of objects or of strings
	FormatCSV   = "csv"   // a header, then rows, with commas or semicolons between
	FormatTSV   = "tsv"   // the same with tabs
	FormatText  = "text"  // plain text, see Options.Split
)

var formats = []string{FormatAuto, FormatJSONL, FormatJSON, FormatCSV, FormatTSV, FormatText}

func validateFormat(format string) error {
	if !slices.Contains(formats, format) {
		return fmt.Errorf("format %q: choose one of %s, or leave it empty to have it found", format,
			strings.Join(formats[1:], ", "))
	}
	return nil
}

// formatOf finds the format of a file that is not parquet, by its name and the type of its text.
func formatOf(name string, kind filetype.Type, text *bufio.Reader) (string, error) {
	if kind == filetype.Empty {
		return FormatJSONL, nil // no documents, whatever it is
	}
	extension := strings.ToLower(path.Ext(trimPacked(name)))
	switch extension {
	case ".csv":
		return orLines(FormatCSV, kind, text), nil
	case ".tsv", ".tab":
		return orLines(FormatTSV, kind, text), nil
	case ".txt", ".text", ".md", ".markdown", ".rst", ".tex":
		return orLines(FormatText, kind, text), nil
	}
	switch {
	case kind == filetype.JSONList:
		return FormatJSON, nil
	case kind == filetype.JSONObject || extension == ".jsonl" || extension == ".ndjson" || extension == ".json":
		return FormatJSONL, nil
	case extension == "":
		return FormatText, nil
	}
	return "", fmt.Errorf("the file is text, and the extension %s says nothing of how it is to be read: documents "+
		"are read from parquet and, as %s say, from .jsonl, .json, .csv, .tsv and .txt; name the file so, or set "+
		"format to text, csv or another of them",
		extension, "their extensions")
}

// trimPacked removes an extension that stands for compression.
func trimPacked(name string) string {
	for _, packed := range []string{".gz", ".zst", ".gzip", ".zstd"} {
		if strings.EqualFold(path.Ext(name), packed) {
			return name[:len(name)-len(packed)]
		}
	}
	return name
}

// orLines returns the format, or FormatJSONL if the first line is a JSON object.
func orLines(format string, kind filetype.Type, text *bufio.Reader) string {
	if kind != filetype.JSONObject {
		return format
	}
	start, _ := text.Peek(text.Size())
	line, _, whole := bytes.Cut(filetype.TrimMarks(start), []byte("\n"))
	if json.Valid(line) || !whole && len(start) == text.Size() {
		return FormatJSONL
	}
	return format
}

// openText opens a file of any format but parquet.
func openText(in *bufio.Reader, kind filetype.Type, o Options) (rowReader, error) {
	format := o.Format
	if format == FormatAuto {
		var err error
		if format, err = formatOf(o.Source, kind, in); err != nil {
			return nil, err
		}
	}
	switch format {
	case FormatText:
		if len(o.Filters) > 0 {
			return nil, errors.New("filters ask for columns, and plain text has none: give filters to the other " +
				"sources alone")
		}
		return newTextReader(in, o), nil
	case FormatCSV, FormatTSV:
		return openTable(in, format, o)
	case FormatJSON:
		return newObjectReader(&listScanner{in: in, limit: o.MaxDocument, name: textName(o)}, o), nil
	}
	return openJSONL(in, o), nil
}

// textName is the name of the column of text for formats whose rows may be bare texts.
func textName(o Options) string {
	if o.Fields.Text != "" {
		return o.Fields.Text
	}
	return "text"
}
