package dataset

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

func TestSniff(t *testing.T) {
	for start, want := range map[string]Kind{
		"":                                KindEmpty,
		" \r\n\t":                         KindEmpty,
		"\uFEFF\n":                        KindEmpty,
		"PAR1\x15":                        KindParquet,
		"\x1f\x8b\x08":                    KindGzip,
		"\x28\xb5\x2f\xfd\x00":            KindZstd,
		"\x50\x2a\x4d\x18\x04\x00\x00":    KindZstd, // a skippable frame comes first
		"\x5f\x2a\x4d\x18\x04\x00\x00":    KindZstd,
		`{"text":"x"}`:                    KindObject,
		"\uFEFF\r\n \uFEFF{\"text\":\"\"": KindObject,
		" [\n":                            KindList,
		"ORCHESTRA":                       KindText,
		"BZhuh?":                          KindText,
		"Call me Ishmael.":                KindText,
		"<|user|> hello":                  KindText,
		"id,text\n1,x\n":                  KindText,
		"version https://example.org":     KindText,
		"Привет":                          KindText,
		"caf\xe9":                         KindText,
		"a":                               KindText,
	} {
		if got, err := Sniff([]byte(start)); got != want || err != nil {
			t.Errorf("%q is %d, %v, want %d", start, got, err, want)
		}
	}
}

// TestForeignFiles: what documents cannot be read from is named for what it is, and the error says what to do.
func TestForeignFiles(t *testing.T) {
	wide := func(order func([]byte, uint16) []byte, mark string) string {
		var b []byte
		for _, u := range utf16.Encode([]rune(mark + `{"text":"x"}`)) {
			b = order(b, u)
		}
		return string(b)
	}
	little := func(b []byte, u uint16) []byte { return append(b, byte(u), byte(u>>8)) }
	big := func(b []byte, u uint16) []byte { return append(b, byte(u>>8), byte(u)) }
	little4 := func(b []byte, u uint16) []byte { return append(little(b, u), 0, 0) }
	big4 := func(b []byte, u uint16) []byte { return big(append(b, 0, 0), u) }
	for name, c := range map[string]struct{ start, want string }{
		"Git LFS":            {"version https://git-lfs.github.com/spec/v1\noid sha256:77", "git lfs pull"},
		"web page":           {"\n<!DOCTYPE HTML><html>", "a web page (HTML)"},
		"web page, no type":  {"<html lang=en>", "a web page (HTML)"},
		"XML":                {`<?xml version="1.0"?><Error>`, "XML"},
		"UTF-16LE, marked":   {wide(little, "\uFEFF"), "UTF-16LE"},
		"UTF-16BE, marked":   {wide(big, "\uFEFF"), "UTF-16BE"},
		"UTF-16LE":           {wide(little, ""), "UTF-16LE"},
		"UTF-16BE":           {wide(big, ""), "UTF-16BE"},
		"UTF-32LE, marked":   {wide(little4, "\uFEFF"), "UTF-32LE"},
		"UTF-32BE, marked":   {wide(big4, "\uFEFF"), "UTF-32BE"},
		"UTF-32LE":           {wide(little4, ""), "UTF-32LE"},
		"UTF-32BE":           {wide(big4, ""), "UTF-32BE"},
		"bzip2":              {"BZh91AY&SY\x01\x02", "bzip2"},
		"xz":                 {"\xfd7zXZ\x00\x00", "xz"},
		"zip":                {"PK\x03\x04\x14", "ZIP"},
		"7z":                 {"7z\xbc\xaf\x27\x1c", "7z"},
		"tar":                {strings.Repeat("a", 257) + "ustar\x0000", "tar"},
		"encrypted parquet":  {"PARE\x15\x00", "encrypted"},
		"packed model":       {"BIT2\x01", ".bit2"},
		"token batch":        {"ARROW1\x00\x00 bitnet1.tokens.v1", "a token batch"},
		"shard":              {"ARROW1\x00\x00 bitnet1.shard.v1", "a shard"},
		"Arrow":              {"ARROW1\x00\x00", "an Arrow file"},
		"safetensors":        {"\x40\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\"", "safetensors"},
		"manifest":           {`{"format":"bitnet1.dataset.v1","tok`, "manifest"},
		"list of texts":      {"bitnet1.texts.v1abcdefgh", "known"},
		"pickle":             {"\x80\x04\x95", "pickle"},
		"something unknown":  {"abc\x00\x01\x02def", "binary"},
		"mark, then unknown": {"\uFEFF\x00\x01\x02def", "binary"},
	} {
		if kind, err := Sniff([]byte(c.start)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: kind %d, %v, want an error with %q", name, kind, err, c.want)
		}
	}
	var b bytes.Buffer
	w, err := NewBatchWriter(&b, small)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Sniff(b.Bytes()[:min(b.Len(), Sniffed)]); err == nil || !strings.Contains(err.Error(), "a token batch") {
		t.Errorf("a token batch as we write it: %v", err)
	}
	m, dir := mustSeal(t, SealOptions{SequenceLength: 50}, []string{writeBatch(t, small, synthetic(100, small))})
	shard, err := os.ReadFile(filepath.Join(dir, m.Splits.Train.Shards[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sniff(shard[:Sniffed]); err == nil || !strings.Contains(err.Error(), "a shard") {
		t.Errorf("a shard as we write it: %v", err)
	}
	manifest, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sniff(manifest[:Sniffed]); err == nil || !strings.Contains(err.Error(), "manifest") {
		t.Errorf("a manifest as we write it: %v", err)
	}
}

// What is named in place of a dataset or a token batch is called what it is, with what to name instead; a damaged one of
// the right kind is not called another.
func TestMistakenFiles(t *testing.T) {
	tensors := "\x40\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\":{}}"
	log := `{"event":"step","step":10,"tokens":40960,"train_bpc":7.3}`
	for name, c := range map[string]struct{ start, manifest, batch string }{
		"checkpoint":  {tensors, "is a safetensors file (a checkpoint) and not the manifest of a dataset: name the manifest.json", "is a safetensors file (a checkpoint) and not a token batch: name what tokenize writes"},
		"packed":      {"BIT2\x01\x00", "is a packed model (.bit2) and not the manifest", "is a packed model (.bit2) and not a token batch"},
		"log":         {log, "is the log of a training and not the manifest", "is the log of a training and not a token batch"},
		"batch":       {"ARROW1\x00\x00 " + BatchFormat, "is a token batch and not the manifest", "corrupt or truncated"},
		"shard":       {"ARROW1\x00\x00 " + ShardFormat, "is a shard of a dataset and not the manifest", "is a shard of a dataset and not a token batch"},
		"manifest":    {`{"format":"` + ManifestFormat + `"`, "unexpected EOF", "is the manifest of a dataset and not a token batch"},
		"other Arrow": {"ARROW1\x00\x00 xyz", "is not the manifest of a dataset", "corrupt or truncated"},
		"other JSON":  {`{"formt":"x"}`, `unknown field "formt"`, "is not a token batch"},
		"text":        {"Call me Ishmael.", "is not the manifest of a dataset: name the manifest.json", "is not a token batch: name what tokenize writes"},
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, []byte(c.start), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), c.manifest) {
			t.Errorf("%s as a manifest: %v; want %q", name, err, c.manifest)
		}
		if _, err := OpenBatch(path); err == nil || !strings.Contains(err.Error(), c.batch) {
			t.Errorf("%s as a token batch: %v; want %q", name, err, c.batch)
		}
	}
}
