package documents

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"bitnet1/shared/filetype"
)

// Of every file that holds no documents the error says what to do. The types are numbered from 0 to that of the log.
func TestEveryForeignFileHasAdvice(t *testing.T) {
	for kind := range filetype.TrainingLog + 1 {
		err := refuse(kind)
		if readable := slices.Contains(readable, kind); readable != (err == nil) || !readable &&
			cmp.Or(instead[kind], kind.Remedy()) == "" {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

// What documents cannot be read from is called what it is, plain and inside gzip, and the error says what to do.
func TestForeignFiles(t *testing.T) {
	var wide []byte
	for _, u := range utf16.Encode([]rune(`{"text":"x"}`)) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	for want, start := range map[string]string{
		"git lfs pull":                        "version https://git-lfs.github.com/spec/v1\noid sha256:77",
		"a web page (HTML)":                   "\n<!DOCTYPE HTML><html>",
		"iconv -f UTF-16LE":                   string(wide),
		"bunzip2 FILE first":                  "BZh91AY&SY\x01\x02",
		"name the files in it":                strings.Repeat("a", 257) + "ustar\x0000",
		"an ORC file: write its rows":         "ORC\x01",
		"a token batch: tokenize has made it": "ARROW1\x00\x00 bitnet1.tokens.v1",
		"a program: it holds no documents":    "\x7fELF\x02",
		"documents are read from parquet":     "abc\x00\x01\x02def",
	} {
		for name, data := range map[string][]byte{"plain": []byte(start), "inside gzip": gzipped(start)} {
			got := answer(writeFile(t, "f", data), Options{})
			if !strings.Contains(got, want) || strings.Contains(got, "inside gzip") != bytes.HasPrefix(data,
				[]byte("\x1f\x8b")) {
				t.Errorf("%s: %s, want %q", name, got, want)
			}
		}
	}
}
