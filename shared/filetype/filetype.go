// Package filetype tells what a file is by its first bytes, whatever its name: formats that this project reads or
// writes, and those that people take for them. What to do with a file of the wrong type depends on who reads it, so
// readers say that themselves; a type knows only how to get at what a file stands for, see Type.Remedy.
//
// All of shared/ may import the package.
package filetype

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
)

// Sample is how many of a file's first bytes decide about its type.
const Sample = 512

// Type is what a file is.
type Type int

// The types of files. JSON, HTML and XML may begin with white space and marks of byte order.
const (
	Binary Type = iota // of an unknown type
	Empty              // no bytes, or white space alone
	Text               // in UTF-8, or in any encoding without zeros
	JSONObject
	JSONList
	HTML
	XML
	UTF16LE // text, with or without a mark of byte order
	UTF16BE
	UTF32LE
	UTF32BE

	GitLFS // pointers that stand in a repository for the data
	Xet
	GitAnnex

	Gzip
	Zstd
	Bzip2
	XZ
	LZMA
	LZ4
	Snappy
	Compress
	ZIP
	EmptyZIP
	SevenZip
	RAR
	Tar

	Parquet
	EncryptedParquet
	Arrow // an IPC file
	ArrowStream
	Feather
	ORC
	Avro
	SQLite
	HDF5
	NumPy
	Pickle
	Safetensors
	GGUF
	PDF
	Program
	Picture

	TokenBatch // this project's own
	Shard
	TextDigests
	Manifest
	PackedModel
	TrainingLog
)

// types says of each type what a file of it is, and Type.Remedy.
var types = [...]struct{ name, remedy string }{
	Binary:     {"binary data of an unknown kind", ""},
	Empty:      {"empty", "was it cut off while it was copied? Fetch it again"},
	Text:       {"text", ""},
	JSONObject: {"JSON text", ""},
	JSONList:   {"JSON text", ""},
	HTML: {
		"a web page (HTML), as servers send in place of a file that they do not give",
		"check the address and your rights, and fetch the file again",
	},
	XML: {"XML, as servers send in place of a file that they do not give",
		"check the address, and fetch the file again"},
	UTF16LE: {"text in UTF-16LE", "iconv -f UTF-16LE -t UTF-8 FILE > NEW"},
	UTF16BE: {"text in UTF-16BE", "iconv -f UTF-16BE -t UTF-8 FILE > NEW"},
	UTF32LE: {"text in UTF-32LE", "iconv -f UTF-32LE -t UTF-8 FILE > NEW"},
	UTF32BE: {"text in UTF-32BE", "iconv -f UTF-32BE -t UTF-8 FILE > NEW"},

	GitLFS:   {"a pointer of Git LFS and not the data", "git lfs pull fetches the data"},
	Xet:      {"a pointer of Xet and not the data", "fetch the data with the program that wrote the pointer"},
	GitAnnex: {"a pointer of git-annex and not the data", "git annex get FILE fetches the data"},

	Gzip:     {"compressed with gzip", "gunzip FILE first"},
	Zstd:     {"compressed with zstd", "zstd -d FILE first"},
	Bzip2:    {"compressed with bzip2", "bunzip2 FILE first"},
	XZ:       {"compressed with xz", "unxz FILE first"},
	LZMA:     {"compressed with LZMA", "unlzma FILE first"},
	LZ4:      {"compressed with LZ4", "unlz4 FILE first"},
	Snappy:   {"compressed with snappy", "decompress it first"},
	Compress: {"compressed with compress", "uncompress FILE first"},
	ZIP:      {"a ZIP archive (files of PyTorch and of office programs are too)", "unzip it and name the files in it"},
	EmptyZIP: {"an empty ZIP archive", ""},
	SevenZip: {"a 7z archive", "unpack it (7z x FILE) and name the files in it"},
	RAR:      {"a RAR archive", "unpack it and name the files in it"},
	Tar:      {"a tar archive", "unpack it (tar xf FILE) and name the files in it"},

	Parquet:          {"a parquet file", ""},
	EncryptedParquet: {"an encrypted parquet file", "write the file without encryption"},
	Arrow:            {"an Arrow file", ""},
	ArrowStream:      {"an Arrow stream", ""},
	Feather:          {"a Feather file", ""},
	ORC:              {"an ORC file", ""},
	Avro:             {"an Avro file", ""},
	SQLite:           {"an SQLite database", ""},
	HDF5:             {"an HDF5 file", ""},
	NumPy:            {"a NumPy array", ""},
	Pickle:           {"a Python pickle", ""},
	Safetensors:      {"a safetensors file (a checkpoint)", ""},
	GGUF:             {"a GGUF model", ""},
	PDF:              {"a PDF", ""},
	Program:          {"a program", ""},
	Picture:          {"a picture", ""},

	TokenBatch:  {"a token batch", ""},
	Shard:       {"a shard of a dataset", ""},
	TextDigests: {"a dataset's list of texts", ""},
	Manifest:    {"the manifest of a dataset", ""},
	PackedModel: {"a packed model (.bit2)", ""},
	TrainingLog: {"the log of a training", ""},
}

// String completes the sentence "the file is".
func (t Type) String() string { return types[t].name }

// Remedy says how to get at the data where a file of the type only stands for them or holds them, whoever reads them:
// it is empty for a type that is what it is.
func (t Type) Remedy() string { return types[t].remedy }

// signatures are what files begin with, or have at a place.
var signatures = []struct {
	prefix string
	at     int
	Type
}{
	{"PAR1", 0, Parquet},
	{"\x1f\x8b", 0, Gzip},
	{"\x28\xb5\x2f\xfd", 0, Zstd},
	{"version https://git-lfs.github.com/", 0, GitLFS},
	{"version https://hawser.github.com/", 0, GitLFS},
	{"# xet version", 0, Xet},
	{"/annex/objects/", 0, GitAnnex},
	{"PARE", 0, EncryptedParquet},
	{"BZh", 0, Bzip2},
	{"\xfd7zXZ\x00", 0, XZ},
	{"]\x00\x00", 0, LZMA},
	{"\x04\x22\x4d\x18", 0, LZ4},
	{"\xff\x06\x00\x00sNaPpY", 0, Snappy},
	{"\x1f\x9d", 0, Compress},
	{"PK\x03\x04", 0, ZIP},
	{"PK\x05\x06", 0, EmptyZIP},
	{"7z\xbc\xaf\x27\x1c", 0, SevenZip},
	{"Rar!\x1a\x07", 0, RAR},
	{"ustar", 257, Tar},
	{"%PDF-", 0, PDF},
	{"ORC", 0, ORC},
	{"Obj\x01", 0, Avro},
	{"\x89HDF\r\n\x1a\n", 0, HDF5},
	{"SQLite format 3\x00", 0, SQLite},
	{"\x93NUMPY", 0, NumPy},
	{"FEA1", 0, Feather},
	{"\xff\xff\xff\xff", 0, ArrowStream},
	{"GGUF", 0, GGUF},
	{"\x7fELF", 0, Program},
	{"\x89PNG", 0, Picture},
	{"\xff\xd8\xff", 0, Picture},
	{"ARROW1", 0, Arrow},
	{"BIT2", 0, PackedModel},
	{"bitnet1.texts.", 0, TextDigests},
	{`{"format":"bitnet1.dataset.`, 0, Manifest},
	{`{"event":"step","step":`, 0, TrainingLog},
}

// OfFile is Of for the file at path.
func OfFile(path string) (Type, error) {
	f, err := os.Open(path)
	if err != nil {
		return Binary, err
	}
	defer f.Close()
	start, err := io.ReadAll(io.LimitReader(f, Sample))
	return Of(start), err
}

// Of tells what a file is by its first bytes: Sample of them, or all of a shorter file.
func Of(start []byte) Type {
	start = start[:min(len(start), Sample)]
	switch t := bySignature(start); t {
	case Binary:
		return byText(start)
	case Arrow:
		switch {
		case bytes.Contains(start, []byte("bitnet1.tokens.")):
			return TokenBatch
		case bytes.Contains(start, []byte("bitnet1.shard.")):
			return Shard
		}
		return Arrow
	default:
		return t
	}
}

// bySignature is Binary where no signature fits.
func bySignature(start []byte) Type {
	// A safetensors file begins with any bytes: those of the length of its header, which is of JSON.
	if len(start) > 8 && start[8] == '{' && binary.LittleEndian.Uint64(start) < 1<<32 {
		return Safetensors
	}
	controls := hasControls(start)
	for _, s := range signatures {
		word := len(s.prefix) <= 4 && !hasControls([]byte(s.prefix)) && s.Type != Parquet // a text may begin with it
		if len(start) >= s.at && bytes.HasPrefix(start[s.at:], []byte(s.prefix)) && (controls || !word) {
			return s.Type
		}
	}
	switch {
	case len(start) >= 4 && start[0]&0xf0 == 0x50 && string(start[1:4]) == "\x2a\x4d\x18":
		return Zstd // a frame without data comes first, as in files of pzstd
	case len(start) > 2 && start[0] == 0x80 && start[1] >= 2 && start[1] <= 5:
		return Pickle
	}
	return Binary
}

// byText tells what a file is that has no signature.
func byText(start []byte) Type {
	if t := wideText(start); t != Binary {
		return t
	}
	text := TrimMarks(start)
	lower := bytes.ToLower(text)
	begins := func(with string) bool { return bytes.HasPrefix(lower, []byte(with)) }
	switch {
	case begins("<!doctype html"), begins("<html"):
		return HTML
	case begins("<?xml"):
		return XML
	case len(text) == 0:
		return Empty
	case bytes.IndexByte(text, 0) >= 0:
		return Binary
	case text[0] == '{':
		return JSONObject
	case text[0] == '[':
		return JSONList
	}
	return Text
}

// hasControls tells whether there are control characters that stand in no text.
func hasControls(b []byte) bool {
	return bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' && (r < '\b' || r > '\r') && r != '\x1b' })
}

// ByteOrderMark is the mark with which some programs begin a file of UTF-8.
const ByteOrderMark = "\uFEFF"

// TrimMarks returns the text without the white space and the marks of byte order that it begins with.
func TrimMarks(text []byte) []byte {
	for {
		rest := bytes.TrimPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte(ByteOrderMark))
		if len(rest) == len(text) {
			return text
		}
		text = rest
	}
}

// wideText names an encoding of characters by two or four bytes: by its mark of byte order, or by the zeros that the
// first two characters of any western text or JSON have. It is Binary for any other text.
func wideText(start []byte) Type {
	if len(start) < 4 {
		return Binary
	}
	var zeros [4]bool
	for i, c := range start[:4] {
		zeros[i] = c == 0
	}
	mark := func(m ...byte) bool { return bytes.HasPrefix(start, m) }
	switch {
	case mark(0xff, 0xfe, 0, 0), zeros == [4]bool{false, true, true, true}:
		return UTF32LE
	case mark(0, 0, 0xfe, 0xff), zeros == [4]bool{true, true, true, false}:
		return UTF32BE
	case mark(0xff, 0xfe), zeros == [4]bool{false, true, false, true}:
		return UTF16LE
	case mark(0xfe, 0xff), zeros == [4]bool{true, false, true, false}:
		return UTF16BE
	}
	return Binary
}
