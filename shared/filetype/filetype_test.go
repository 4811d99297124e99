package filetype

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// wide is a text in characters of two or four bytes.
func wide(order func([]byte, uint16) []byte, text string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		b = order(b, u)
	}
	return string(b)
}

func TestTypes(t *testing.T) {
	little := func(b []byte, u uint16) []byte { return append(b, byte(u), byte(u>>8)) }
	big := func(b []byte, u uint16) []byte { return append(b, byte(u>>8), byte(u)) }
	little4 := func(b []byte, u uint16) []byte { return append(little(b, u), 0, 0) }
	big4 := func(b []byte, u uint16) []byte { return big(append(b, 0, 0), u) }
	const object = `{"text":"x"}`
	for start, want := range map[string]Type{
		"":                                Empty,
		" \r\n\t":                         Empty,
		"\uFEFF\n":                        Empty,
		"PAR1\x15":                        Parquet,
		"PAR1":                            Parquet,
		"\x1f\x8b\x08":                    Gzip,
		"\x28\xb5\x2f\xfd\x00":            Zstd,
		"\x50\x2a\x4d\x18\x04\x00\x00":    Zstd, // a skippable frame comes first
		"\x5f\x2a\x4d\x18\x04\x00\x00":    Zstd,
		object:                            JSONObject,
		"\uFEFF\r\n \uFEFF{\"text\":\"\"": JSONObject,
		" [\n":                            JSONList,
		"ORCHESTRA":                       Text,
		"BZhuh?":                          Text,
		"GGUFfaw":                         Text,
		"Call me Ishmael.":                Text,
		"<|user|> hello":                  Text,
		"id,text\n1,x\n":                  Text,
		"version https://example.org":     Text,
		"Привет":                          Text,
		"caf\xe9":                         Text,
		"a":                               Text,

		"version https://git-lfs.github.com/spec/v1\noid sha256:77": GitLFS,
		"/annex/objects/SHA256E-s5--77":                             GitAnnex,
		"\n<!DOCTYPE HTML><html>":                                   HTML,
		"<html lang=en>":                                            HTML,
		`<?xml version="1.0"?><Error>`:                              XML,
		wide(little, "\uFEFF"+object):                               UTF16LE,
		wide(big, "\uFEFF"+object):                                  UTF16BE,
		wide(little, object):                                        UTF16LE,
		wide(big, object):                                           UTF16BE,
		wide(little4, "\uFEFF"+object):                              UTF32LE,
		wide(big4, "\uFEFF"+object):                                 UTF32BE,
		wide(little4, object):                                       UTF32LE,
		wide(big4, object):                                          UTF32BE,
		"BZh91AY&SY\x01\x02":                                        Bzip2,
		"\xfd7zXZ\x00\x00":                                          XZ,
		"PK\x03\x04\x14":                                            ZIP,
		"7z\xbc\xaf\x27\x1c":                                        SevenZip,
		strings.Repeat("a", 257) + "ustar\x0000":                    Tar,
		"PARE\x15\x00":                                              EncryptedParquet,
		"GGUF\x03\x00":                                              GGUF,
		"ARROW1\x00\x00":                                            Arrow,
		"ARROW1\x00\x00 bitnet1.tokens.v1":                          TokenBatch,
		"ARROW1\x00\x00 bitnet1.shard.v1":                           Shard,
		"BIT2\x01":                                                  PackedModel,
		"\x40\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\"":         Safetensors,
		// its header is as long as gzip's magic number
		"\x1f\x8b\x00\x00\x00\x00\x00\x00{\"__metadata__\"": Safetensors,
		`{"format":"bitnet1.dataset.v1","tok`:               Manifest,
		`{"event":"step","step":10}`:                        TrainingLog,
		"bitnet1.texts.v1abcdefgh":                          TextDigests,
		"\x80\x04\x95":                                      Pickle,
		"abc\x00\x01\x02def":                                Binary,
		"\uFEFF\x00\x01\x02def":                             Binary,
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, []byte(start), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := OfFile(path)
		if got := Of([]byte(start)); got != want || file != want || err != nil {
			t.Errorf("%q is %v, as a file %v (%v), want %v", start, got, file, err, want)
		}
	}
	if _, err := OfFile(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there has a type")
	}
}

// Every type has a name, and every signature is of a type of its own right.
func TestTypesHaveNames(t *testing.T) {
	if len(types) != int(TrainingLog)+1 {
		t.Errorf("%d names for %d types", len(types), TrainingLog+1)
	}
	for kind := range TrainingLog + 1 {
		if kind.String() == "" {
			t.Errorf("type %d has no name", kind)
		}
	}
	for _, s := range signatures {
		if got := Of([]byte(strings.Repeat("a", s.at) + s.prefix + "\x00")); got != s.Type {
			t.Errorf("what begins with %q is %v, want %v", s.prefix, got, s.Type)
		}
	}
}
