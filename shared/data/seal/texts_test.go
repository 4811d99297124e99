package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"

	"github.com/zeebo/xxh3"
)

// sealTexts makes a dataset of texts without exact duplicates and returns which of them are in it, and its list of
// texts.
func sealTexts(t *testing.T, o seal.Options, texts ...string) (m *dataset.Manifest, kept []string, list string,
	left []seal.Duplicate) {
	t.Helper()
	tok, info := datasettest.Tokenizer(t, "bytes")
	var docs []datasettest.Document
	for i, text := range texts {
		of := dataset.BatchDocument{ID: text, Source: "s", Row: int64(i), Bytes: int64(len(text))}
		docs = append(docs, datasettest.Document{BatchDocument: of, Tokens: tok.Encode(nil, []byte(text))})
	}
	o.SequenceLength, o.ValidationShare = 64, 0.5
	if o.Duplicates == "" {
		o.Duplicates = seal.ExactDuplicates
	}
	o.Duplicate = func(d seal.Duplicate) { left = append(left, d) }
	m, dir := datasettest.Seal(t, o, datasettest.Batch(t, info, docs))
	d := datasettest.Open(t, m, dir)
	for _, s := range []*dataset.Split{d.Train, d.Validation} {
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
	return m, slices.Compact(kept), filepath.Join(dir, seal.TextsName), left
}

// TestKnownTexts: what earlier datasets hold is left out of a later one, counted and told, whatever its case and white
// space, and so is what an earlier one has left out itself as a duplicate of its own.
func TestKnownTexts(t *testing.T) {
	_, _, first, _ := sealTexts(t, seal.Options{}, "It rains.", "It  RAINS.", "It snows.", "Hail.")
	_, _, second, _ := sealTexts(t, seal.Options{}, "Sun.", "Wind.")
	known := []seal.KnownTexts{{"one", first}, {"two", second}}
	for _, method := range []string{seal.ExactDuplicates, seal.NearDuplicates} {
		m, kept, list, left := sealTexts(t, seal.Options{Known: known, Duplicates: method}, "Fog.", "it rains.",
			"fog. ", "Mist.", "wind.")
		if !slices.Equal(kept, []string{"Fog.", "Mist."}) {
			t.Errorf("%s: kept %q", method, kept)
		}
		if d := m.Duplicates; d.Earlier != 2 || d.Exact != 1 || !slices.Equal(d.Known, []string{"one", "two"}) {
			t.Errorf("%s: %+v", method, d)
		}
		if len(left) != 3 || left[0].OfSource != "one" || left[0].OfDocument != "" || left[0].Text != "it rains." ||
			left[1].OfSource != "two" || left[2].OfDocument != "Fog." {
			t.Errorf("%s: told %+v", method, left)
		}
		b, err := os.ReadFile(list)
		if err != nil || len(b) != len(seal.TextsFormat)+2*seal.TextBytes {
			t.Errorf("%s: a list of %d bytes for two texts, %v", method, len(b), err)
		}
	}
	if _, kept, _, _ := sealTexts(t, seal.Options{Known: []seal.KnownTexts{{"two", second}, {"one", first}}}, "Hail.",
		"Sleet.", "Dew."); !slices.Equal(kept, []string{"Dew.", "Sleet."}) {
		t.Errorf("kept %q", kept)
	}
	err := seal.Options{SequenceLength: 1, SequencesPerShard: 1, ValidationShare: 0.5, Similarity: 1,
		Duplicates: seal.KeepDuplicates, Known: known}.Validate()
	if err == nil || !strings.Contains(err.Error(), "exact") {
		t.Errorf("known texts where duplicates are kept: %v", err)
	}
}

func TestDamagedTexts(t *testing.T) {
	all := xxh3.Uint128{Hi: ^uint64(0), Lo: ^uint64(0)}
	var good bytes.Buffer
	if err := seal.WriteTexts(&good, []xxh3.Uint128{{Hi: 3}, {Hi: 1, Lo: 7}, {Hi: 3}}); err != nil {
		t.Fatal(err)
	}
	want := seal.TextsFormat + "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00"
	if good.String() != want {
		t.Errorf("the list is %q", good.String())
	}
	unsorted := slices.Concat([]byte(seal.TextsFormat), good.Bytes()[32:48], good.Bytes()[16:32])
	for what, data := range map[string][]byte{"cut": good.Bytes()[:40], "another file": []byte("{\"format\":\"bitn"),
		"out of order": unsorted} {
		path := filepath.Join(t.TempDir(), seal.TextsName)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		list, err := seal.OpenTexts(seal.KnownTexts{Name: what, Path: path})
		if err == nil {
			_, err = list.Has(all)
			list.Close()
		}
		if !errors.Is(err, dataset.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzTexts: a file of any bytes is refused, or read as a set in order.
func FuzzTexts(f *testing.F) {
	f.Add([]byte(seal.TextsFormat + strings.Repeat("0123456789abcdef", 3)))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "texts")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		var list *seal.TextList
		var err error
		alloctest.AtMost(t, 1<<17, func() {
			list,
				err = seal.OpenTexts(seal.KnownTexts{Name: "fuzz", Path: path})
		})
		if err != nil {
			return
		}
		defer list.Close()
		for hi := uint64(0); hi < 1<<63; hi = hi*2 + 1 {
			if _, err := list.Has(xxh3.Uint128{Hi: hi}); err != nil {
				return
			}
		}
	})
}
