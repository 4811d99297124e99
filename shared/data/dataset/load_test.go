package dataset_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/filetype"
)

// What is named in place of a dataset or a token batch is called what it is, with what to name instead; a damaged one
// of the right kind is not called another.
func TestMistakenFiles(t *testing.T) {
	tensors := "\x40\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\":{}}"
	log := `{"event":"step","step":10,"tokens":40960,"train_bpc":7.3}`
	for name, c := range map[string]struct{ start, manifest, batch string }{
		"checkpoint": {tensors,
			"is a safetensors file (a checkpoint) and not the manifest of a dataset: name the manifest.json",
			"is a safetensors file (a checkpoint) and not a token batch: name what tokenize writes"},
		"packed": {"BIT2\x01\x00", "is a packed model (.bit2) and not the manifest",
			"is a packed model (.bit2) and not a token batch"},
		"log": {log, "is the log of a training and not the manifest",
			"is the log of a training and not a token batch"},
		"batch": {"ARROW1\x00\x00 " + dataset.BatchFormat, "is a token batch and not the manifest",
			"corrupt or truncated"},
		"shard": {"ARROW1\x00\x00 " + dataset.ShardFormat, "is a shard of a dataset and not the manifest",
			"is a shard of a dataset and not a token batch"},
		"manifest": {`{"format":"` + dataset.ManifestFormat + `"`, "unexpected EOF",
			"is the manifest of a dataset and not a token batch"},
		"other Arrow": {"ARROW1\x00\x00 xyz", "is an Arrow file and not the manifest of a dataset",
			"corrupt or truncated"},
		"other JSON": {`{"formt":"x"}`, `unknown field "formt"`, "is JSON text and not a token batch"},
		"text": {"Call me Ishmael.", "is text and not the manifest of a dataset: name the manifest.json",
			"is text and not a token batch: name what tokenize writes"},
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, []byte(c.start), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := dataset.Load(path, nil); err == nil || !strings.Contains(err.Error(), c.manifest) {
			t.Errorf("%s as a manifest: %v; want %q", name, err, c.manifest)
		}
		if _, err := dataset.OpenBatch(path); err == nil || !strings.Contains(err.Error(), c.batch) {
			t.Errorf("%s as a token batch: %v; want %q", name, err, c.batch)
		}
	}
}

// What is written is known by its first bytes.
func TestWhatIsWrittenHasAType(t *testing.T) {
	batch := datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(100, datasettest.Small))
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 50, Duplicates: seal.ExactDuplicates}, batch)
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(manifest, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]filetype.Type{
		batch: filetype.TokenBatch, manifest: filetype.Manifest,
		filepath.Join(dir, m.Splits.Train.Shards[0].Name): filetype.Shard,
		filepath.Join(dir, seal.TextsName):                filetype.TextDigests,
	} {
		if got, err := filetype.OfFile(path); got != want || err != nil {
			t.Errorf("%s is %v, %v, want %v", filepath.Base(path), got, err, want)
		}
	}
}
