package dataset

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"
)

// sealTexts makes a dataset of texts without exact duplicates and returns which of them are in it, and its list of texts.
func sealTexts(t *testing.T, o SealOptions, texts ...string) (m *Manifest, kept []string, list string, left []Duplicate) {
	t.Helper()
	tok := mustTokenizer(t, "bytes")
	var docs []document
	for i, text := range texts {
		docs = append(docs, document{BatchDocument{ID: text, Source: "s", Row: int64(i), Bytes: int64(len(text))}, tok.Encode(nil, []byte(text))})
	}
	o.SequenceLength, o.ValidationShare = 64, 0.5
	if o.Duplicates == "" {
		o.Duplicates = ExactDuplicates
	}
	o.Duplicate = func(d Duplicate) { left = append(left, d) }
	m, dir := mustSeal(t, o, []string{writeBatch(t, infoOf(tok), docs)})
	d := mustOpen(t, m, dir)
	for _, s := range []*Split{d.Train, d.Validation} {
		for i := range s.Len() {
			ranges, err := s.Ranges(i)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range ranges {
				kept = append(kept, r.Document)
			}
		}
	}
	slices.Sort(kept)
	return m, slices.Compact(kept), filepath.Join(dir, TextsName), left
}

// TestKnownTexts: what earlier datasets hold is left out of a later one, counted and told, whatever its case and white
// space, and so is what an earlier one has left out itself as a duplicate of its own.
func TestKnownTexts(t *testing.T) {
	_, _, first, _ := sealTexts(t, SealOptions{}, "It rains.", "It  RAINS.", "It snows.", "Hail.")
	_, _, second, _ := sealTexts(t, SealOptions{}, "Sun.", "Wind.")
	known := []KnownTexts{{"one", first}, {"two", second}}
	for _, method := range []string{ExactDuplicates, NearDuplicates} {
		m, kept, list, left := sealTexts(t, SealOptions{Known: known, Duplicates: method}, "Fog.", "it rains.", "fog. ", "Mist.", "wind.")
		if !slices.Equal(kept, []string{"Fog.", "Mist."}) {
			t.Errorf("%s: kept %q", method, kept)
		}
		if d := m.Duplicates; d.Earlier != 2 || d.Exact != 1 || !slices.Equal(d.Known, []string{"one", "two"}) {
			t.Errorf("%s: %+v", method, d)
		}
		if len(left) != 3 || left[0].OfSource != "one" || left[0].OfDocument != "" || left[0].Text != "it rains." || left[1].OfSource != "two" || left[2].OfDocument != "Fog." {
			t.Errorf("%s: told %+v", method, left)
		}
		b, err := os.ReadFile(list)
		if err != nil || len(b) != len(TextsFormat)+2*textBytes {
			t.Errorf("%s: a list of %d bytes for two texts, %v", method, len(b), err)
		}
	}
	if _, kept, _, _ := sealTexts(t, SealOptions{Known: []KnownTexts{{"two", second}, {"one", first}}}, "Hail.", "Sleet.", "Dew."); !slices.Equal(kept, []string{"Dew.", "Sleet."}) {
		t.Errorf("kept %q", kept)
	}
	err := SealOptions{SequenceLength: 1, SequencesPerShard: 1, ValidationShare: 0.5, Similarity: 1, Duplicates: KeepDuplicates, Known: known}.Validate()
	if err == nil || !strings.Contains(err.Error(), "exact") {
		t.Errorf("known texts where duplicates are kept: %v", err)
	}
}

func TestDamagedTexts(t *testing.T) {
	all := xxh3.Uint128{Hi: ^uint64(0), Lo: ^uint64(0)}
	var good bytes.Buffer
	if err := writeTexts(&good, []xxh3.Uint128{{Hi: 3}, {Hi: 1, Lo: 7}, {Hi: 3}}); err != nil {
		t.Fatal(err)
	}
	if want := TextsFormat + "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00"; good.String() != want {
		t.Errorf("the list is %q", good.String())
	}
	unsorted := slices.Concat([]byte(TextsFormat), good.Bytes()[32:48], good.Bytes()[16:32])
	for what, data := range map[string][]byte{"cut": good.Bytes()[:40], "another file": []byte("{\"format\":\"bitn"), "out of order": unsorted} {
		list, err := openTexts(KnownTexts{what, writeFile(t, "f", data)})
		if err == nil {
			_, err = list.has(all)
			list.close()
		}
		if !errors.Is(err, errCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzTexts: a file of any bytes is refused, or read as a set in order.
func FuzzTexts(f *testing.F) {
	f.Add([]byte(TextsFormat + strings.Repeat("0123456789abcdef", 3)))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "texts")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		var list *textList
		var err error
		takesAtMost(t, 1<<16, func() { list, err = openTexts(KnownTexts{"fuzz", path}) }) // it is mapped, however long
		if err != nil {
			return
		}
		defer list.close()
		for hi := uint64(0); hi < 1<<63; hi = hi*2 + 1 {
			if _, err := list.has(xxh3.Uint128{Hi: hi}); err != nil {
				return
			}
		}
	})
}
