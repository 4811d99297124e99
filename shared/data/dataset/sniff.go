package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"bitnet1/shared/data/parquet"
)

// Sniffed is how many of a file's first bytes Sniff looks at, at most.
const Sniffed = 512

// Kind is what a file is by its first bytes.
type Kind int

// The kinds of files from which documents can be read. Every other kind is an error of Sniff.
const (
	KindEmpty   Kind = iota // no bytes, or white space alone
	KindParquet             // a parquet file
	KindGzip                // gzip; its contents have a kind of their own
	KindZstd                // zstd; its contents have a kind of their own
	KindObject              // a JSON object comes first: JSON Lines
	KindList                // a JSON list comes first
	KindText                // text of any other sort
)

// Sniff tells what a file is by its first bytes: Sniffed of them, or all of a shorter file. A file from which no documents
// can be read gives an error that says what the file is and what to do about it.
func Sniff(start []byte) (Kind, error) {
	switch {
	case bytes.HasPrefix(start, []byte(parquet.Magic)):
		return KindParquet, nil
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return KindGzip, nil
	case bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}), skippableFrame(start):
		return KindZstd, nil
	}
	if what := foreign(start); what != "" {
		return 0, errors.New("the file is " + what)
	}
	if name := wideEncoding(start); name != "" {
		return 0, fmt.Errorf("the file is text in %s: documents are read in UTF-8: iconv -f %s -t UTF-8 FILE > NEW", name, name)
	}
	text := trimMarks(start)
	switch {
	case len(text) == 0:
		return KindEmpty, nil
	case bytes.IndexByte(text, 0) >= 0:
		return 0, errors.New("the file is binary data of an unknown kind: documents are read from parquet and from text in UTF-8")
	case text[0] == '{':
		return KindObject, nil
	case text[0] == '[':
		return KindList, nil
	}
	return KindText, nil
}

// skippableFrame tells whether a file begins with a frame of zstd that holds no data, as files of pzstd do.
func skippableFrame(start []byte) bool {
	return len(start) >= 4 && start[0]&0xf0 == 0x50 && bytes.Equal(start[1:4], []byte{0x2a, 0x4d, 0x18})
}

// byteOrderMark is the mark with which some programs begin a file of UTF-8.
var byteOrderMark = []byte("\uFEFF")

// trimMarks is the text without the white space and the marks of byte order that it begins with.
func trimMarks(text []byte) []byte {
	for {
		rest := bytes.TrimPrefix(bytes.TrimLeft(text, " \t\r\n"), byteOrderMark)
		if len(rest) == len(text) {
			return text
		}
		text = rest
	}
}

// signature is how files of a kind begin.
type signature struct {
	prefix string
	at     int
	what   string // the file is …
}

const (
	readInstead = ": documents are read from parquet, JSON Lines and text, plain, gzip or zstd"
	notDocument = ", which holds no documents: name files of documents instead"
	convert     = ": write its rows as parquet or JSON Lines first"
)

var signatures = []signature{
	{"version https://git-lfs.github.com/", 0, "a pointer of Git LFS and not the data: git lfs pull fetches the data"},
	{"version https://hawser.github.com/", 0, "a pointer of Git LFS and not the data: git lfs pull fetches the data"},
	{"# xet version", 0, "a pointer of Xet and not the data: fetch the data with the program that wrote the pointer"},
	{"/annex/objects/", 0, "a pointer of git-annex and not the data: git annex get FILE fetches the data"},
	{"PARE", 0, "an encrypted parquet file: encrypted files are not supported: write the file without encryption"},
	{"BZh", 0, "compressed with bzip2: bunzip2 FILE first, or recompress: bunzip2 -c FILE | zstd > NEW.zst"},
	{"\xfd7zXZ\x00", 0, "compressed with xz: unxz FILE first, or recompress: xz -dc FILE | zstd > NEW.zst"},
	{"]\x00\x00", 0, "compressed with LZMA: unlzma FILE first"},
	{"\x04\x22\x4d\x18", 0, "compressed with LZ4: unlz4 FILE first"},
	{"\xff\x06\x00\x00sNaPpY", 0, "compressed with snappy: decompress it first"},
	{"\x1f\x9d", 0, "compressed with compress: uncompress FILE first"},
	{"PK\x03\x04", 0, "a ZIP archive (files of PyTorch and of office programs are too): unzip it and name the files in it" + readInstead},
	{"PK\x05\x06", 0, "an empty ZIP archive" + readInstead},
	{"7z\xbc\xaf\x27\x1c", 0, "a 7z archive: unpack it (7z x FILE) and name the files in it" + readInstead},
	{"Rar!\x1a\x07", 0, "a RAR archive: unpack it and name the files in it" + readInstead},
	{"ustar", 257, "a tar archive: unpack it (tar xf FILE) and name the files in it" + readInstead},
	{"%PDF-", 0, "a PDF: extract its text first"},
	{"ORC", 0, "an ORC file" + convert},
	{"Obj\x01", 0, "an Avro file" + convert},
	{"\x89HDF\r\n\x1a\n", 0, "an HDF5 file" + convert},
	{"SQLite format 3\x00", 0, "an SQLite database" + convert},
	{"\x93NUMPY", 0, "a NumPy array" + convert},
	{"FEA1", 0, "a Feather file" + convert},
	{"\xff\xff\xff\xff", 0, "an Arrow stream" + convert},
	{"GGUF", 0, "a GGUF model" + notDocument},
	{"\x7fELF", 0, "a program" + notDocument},
	{"\x89PNG", 0, "a picture" + notDocument},
	{"\xff\xd8\xff", 0, "a picture" + notDocument},
}

// hasControls tells whether there are control characters that stand in no text.
func hasControls(b []byte) bool {
	return bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' && (r < '\b' || r > '\r') && r != '\x1b' })
}

// foreign says what a file is that documents are not read from, or nothing.
func foreign(start []byte) string {
	controls := hasControls(start)
	for _, s := range signatures {
		word := len(s.prefix) <= 4 && !hasControls([]byte(s.prefix)) // as a text may begin, too
		if len(start) >= s.at && bytes.HasPrefix(start[s.at:], []byte(s.prefix)) && (controls || !word) {
			return s.what
		}
	}
	if own := ownFile(start); own != notOwn {
		return own.what + own.instead
	}
	lower := bytes.ToLower(trimMarks(start))
	switch {
	case bytes.HasPrefix(start, []byte(arrowMagic)):
		return "an Arrow file" + convert
	case bytes.HasPrefix(lower, []byte("<!doctype html")), bytes.HasPrefix(lower, []byte("<html")):
		return "a web page (HTML), as servers send in place of a file that they do not give: check the address and your rights, and fetch the file again"
	case bytes.HasPrefix(lower, []byte("<?xml")):
		return "XML, as servers send in place of a file that they do not give: check the address, and fetch the file again" + readInstead
	case len(start) > 2 && start[0] == 0x80 && start[1] >= 2 && start[1] <= 5:
		return "a Python pickle" + convert
	}
	return ""
}

// own is a file that a stage writes.
type own struct {
	what    string // the file is …
	instead string // … and no source of documents: what to do
}

var (
	notOwn     own
	ownBatch   = own{"a token batch", ", which tokenize has made already: pass it to shard"}
	ownShard   = own{"a shard of a dataset", ", which is made of documents already: pass the dataset's manifest to train"}
	ownTexts   = own{"a dataset's list of texts", ", which belongs into known of the stage shard"}
	ownDataset = own{"the manifest of a dataset", ", which is made of documents already: pass it to train, not to tokenize"}
	ownPacked  = own{"a packed model (.bit2)", notDocument}
	ownLog     = own{"the log of a training", notDocument}
	ownTensors = own{"a safetensors file (a checkpoint)", notDocument}
)

// ownFile tells which of the project's files begins with start, or notOwn.
func ownFile(start []byte) own {
	begins := func(with string) bool { return bytes.HasPrefix(start, []byte(with)) }
	arrow := begins(arrowMagic)
	switch {
	case arrow && bytes.Contains(start, []byte(BatchFormat)):
		return ownBatch
	case arrow && bytes.Contains(start, []byte(ShardFormat)):
		return ownShard
	case begins(TextsFormat):
		return ownTexts
	case begins(`{"format":"` + ManifestFormat):
		return ownDataset
	case begins("BIT2") && hasControls(start):
		return ownPacked
	case begins(`{"event":"step","step":`):
		return ownLog
	case len(start) > 10 && start[8] == '{' && binary.LittleEndian.Uint64(start) < 1<<32:
		return ownTensors
	}
	return notOwn
}

// mistaken explains the error of reading a file that begins with start and with no magic of what is wanted, or is another of
// the project's files: what it is, and what to name instead.
func mistaken(err error, start []byte, wanted own, magic, instead string) error {
	is := ownFile(start)
	switch {
	case is != notOwn && is != wanted:
		return fmt.Errorf("the file is %s and not %s: %s", is.what, wanted.what, instead)
	case is == notOwn && !bytes.HasPrefix(start, []byte(magic)):
		return fmt.Errorf("the file is not %s: %s", wanted.what, instead)
	}
	return err
}

// wideEncoding names an encoding of characters by two or four bytes, by its mark or by the zeros that the first two
// characters of any western text or JSON have, or returns nothing.
func wideEncoding(start []byte) string {
	if len(start) < 4 {
		return ""
	}
	var zeros [4]bool
	for i, c := range start[:4] {
		zeros[i] = c == 0
	}
	mark := func(m ...byte) bool { return bytes.HasPrefix(start, m) }
	switch {
	case mark(0xff, 0xfe, 0, 0), zeros == [4]bool{false, true, true, true}:
		return "UTF-32LE"
	case mark(0, 0, 0xfe, 0xff), zeros == [4]bool{true, true, true, false}:
		return "UTF-32BE"
	case mark(0xff, 0xfe), zeros == [4]bool{false, true, false, true}:
		return "UTF-16LE"
	case mark(0xfe, 0xff), zeros == [4]bool{true, false, true, false}:
		return "UTF-16BE"
	}
	return ""
}
