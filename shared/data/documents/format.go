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

// format is a format beside parquet.
type format struct {
	name string
	// typical are the extensions of names that files of documents have. Files with other extensions, such as .txt, may as
	// well be about the documents in their folder.
	typical, other []string
	open           func(in *bufio.Reader, o Options) (rowReader, error)
}

// formats are all that there is to say of a format beside its reader.
var formats = []format{
	{FormatJSONL, []string{".jsonl", ".ndjson"}, []string{".json"}, openLines},
	{FormatJSON, nil, nil, openList}, // recognized by its first bytes
	{FormatCSV, []string{".csv"}, nil, openCSV},
	{FormatTSV, []string{".tsv"}, []string{".tab"}, openTSV},
	{FormatText, nil, []string{".txt", ".text", ".md", ".markdown", ".rst", ".tex"}, openText},
}

// TypicalExtensions are the extensions of files in a folder that hold documents and are not about them.
func TypicalExtensions() []string {
	all := []string{".parquet"}
	for _, f := range formats {
		all = append(all, f.typical...)
	}
	return all
}

// Extensions are all extensions by which files of documents are known, typical ones first.
func Extensions() []string {
	all := TypicalExtensions()
	for _, f := range formats {
		all = append(all, f.other...)
	}
	return all
}

func validateFormat(name string) error {
	var names []string
	for _, f := range formats {
		names = append(names, f.name)
	}
	if name != FormatAuto && !slices.Contains(names, name) {
		return fmt.Errorf("format %q: choose one of %s, or leave it empty to have it found", name,
			strings.Join(names, ", "))
	}
	return nil
}

// formatOf finds the format of a file that is not parquet, by its name and the type of its text.
func formatOf(name string, kind filetype.Type, text *bufio.Reader) (string, error) {
	if kind == filetype.Empty {
		return FormatJSONL, nil // no documents, whatever it is
	}
	extension := strings.ToLower(path.Ext(trimPacked(name)))
	byName := ""
	for _, f := range formats {
		if slices.Contains(f.typical, extension) || slices.Contains(f.other, extension) {
			byName = f.name
		}
	}
	switch {
	case byName != "" && byName != FormatJSONL:
		return orLines(byName, kind, text), nil
	case kind == filetype.JSONList:
		return FormatJSON, nil
	case kind == filetype.JSONObject || byName == FormatJSONL:
		return FormatJSONL, nil
	case extension == "":
		return FormatText, nil
	}
	return "", fmt.Errorf("the file is text, and the extension %s does not say how to read it: documents end in "+
		"%s; name the file so, or set format to text, csv or another one", extension, strings.Join(Extensions(), ", "))
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

// openFormat opens a file of any format but parquet.
func openFormat(in *bufio.Reader, kind filetype.Type, o Options) (rowReader, error) {
	name := o.Format
	if name == FormatAuto {
		var err error
		if name, err = formatOf(o.Source, kind, in); err != nil {
			return nil, err
		}
	}
	// Options.Validate has checked the name.
	i := slices.IndexFunc(formats, func(f format) bool { return f.name == name })
	return formats[i].open(in, o)
}

func openLines(in *bufio.Reader, o Options) (rowReader, error) { return openJSONL(in, o), nil }

func openList(in *bufio.Reader, o Options) (rowReader, error) {
	return newObjectReader(&listScanner{in: in, limit: o.MaxDocument, name: textName(o)}, o), nil
}

func openCSV(in *bufio.Reader, o Options) (rowReader, error) {
	return openTable(in, newQuotedRows(in, o.MaxDocument).next, o)
}

func openTSV(in *bufio.Reader, o Options) (rowReader, error) {
	return openTable(in, (&tabbedRows{lines: openJSONL(in, o)}).next, o)
}

func openText(in *bufio.Reader, o Options) (rowReader, error) {
	if len(o.Filters) > 0 {
		return nil, errors.New("filters ask for columns, and plain text has none: give filters to the other sources " +
			"alone")
	}
	return newTextReader(in, o), nil
}

// textName is the name of the column of text for formats whose rows may be bare texts.
func textName(o Options) string {
	if o.Fields.Text != "" {
		return o.Fields.Text
	}
	return "text"
}
