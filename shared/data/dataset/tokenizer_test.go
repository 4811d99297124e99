package dataset_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
)

// ownTokenizer is a tokenizer that comes from a file.
func ownTokenizer(t *testing.T) (tokenizer.Tokenizer, []byte) {
	t.Helper()
	bytes, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	file, err := tokenizer.HuggingFace(bytes)
	if err != nil {
		t.Fatal(err)
	}
	own, err := tokenizer.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	return own, file
}

// A dataset names the file of its tokenizer, and a file of another digest is refused with both digests.
func TestTokenizerOfItsOwn(t *testing.T) {
	own, file := ownTokenizer(t)
	info := dataset.InfoOf(own)
	batch := datasettest.Batch(t, info, datasettest.Texts(own, "s", "first text", "second", "third", "First  text"))
	dir := t.TempDir()
	path := filepath.Join(dir, info.FileName())
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	locate := func(i dataset.TokenizerInfo) (string, error) { return filepath.Join(dir, i.FileName()), nil }
	o := seal.Options{SequenceLength: 4, Duplicates: seal.ExactDuplicates, Tokenizer: locate}
	m, shards := datasettest.Seal(t, o, batch)
	if m.Tokenizer != info || info.Digest != digest.Bytes(file) || m.Duplicates.Exact != 1 {
		t.Errorf("the manifest says %+v, %+v", m.Tokenizer, m.Duplicates)
	}
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := dataset.ParseManifest(text); err != nil || again.Tokenizer != info {
		t.Errorf("%+v, %v", again, err)
	}
	datasettest.Open(t, m, shards) // shards and manifest agree
	if opened, err := info.Open(locate); err != nil || opened.Name() != own.Name() {
		t.Errorf("%v, %v", opened, err)
	}
	other := append(file, ' ')
	if err := os.WriteFile(path, other, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := info.Open(locate); err == nil || !strings.Contains(err.Error(), info.Digest) ||
		!strings.Contains(err.Error(), digest.Bytes(other)) {
		t.Errorf("another file: %v", err)
	}
	if err := os.WriteFile(path, file[:99], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := info.Open(locate); err == nil || !strings.Contains(err.Error(), digest.Bytes(file[:99])) {
		t.Errorf("half a file: %v", err)
	}
	for _, wrong := range []dataset.TokenizerInfo{
		{Name: "gpt2", Vocab: 9, Digest: info.Digest, Size: 5}, {Name: info.Name, Vocab: 9, Digest: info.Digest},
		{Name: "gpt2", Vocab: 9, Size: 5}, {Name: info.Name, Vocab: 9, Digest: "12", Size: 5},
	} {
		m.Tokenizer = wrong
		if m.Validate() == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}

// What is said of a built-in tokenizer is what was always said.
func TestBuiltInTokenizerHasNoFile(t *testing.T) {
	text := `{"name":"bytes","vocab":257,"end_of_text":256}`
	m, _ := datasettest.Seal(t, seal.Options{SequenceLength: 4},
		datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(20, datasettest.Small)))
	if b, err := m.Encode(); err != nil || !strings.Contains(string(b), `"tokenizer":`+text+`,`) {
		t.Errorf("%s, %v", b, err)
	}
}
