package dataset_test

import (
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
)

// Only counted targets are to be predicted, in sequences that are not full as well.
func TestCountedTargets(t *testing.T) {
	batch := datasettest.Batch(t, datasettest.Small, datasettest.Synthetic(40, datasettest.Small))
	all, _ := datasettest.Seal(t, seal.Options{SequenceLength: 16, Seed: 5, ValidationShare: 0.2}, batch)
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 16, Counted: []int{4, 13}, Seed: 5,
		ValidationShare: 0.2}, batch)
	if m.Splits.Train.Tokens != all.Splits.Train.Tokens {
		t.Errorf("the manifest counts %d targets of %d", m.Splits.Train.Tokens, all.Splits.Train.Tokens)
	}
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := dataset.ParseManifest(text); err != nil || len(again.Counted) != 2 {
		t.Errorf("the manifest came back as %+v, %v", again, err)
	}
	if text, _ := all.Encode(); strings.Contains(string(text), "counted") {
		t.Errorf("a dataset that counts all targets says so: %s", text)
	}
	for _, split := range []*dataset.Split{datasettest.Open(t, m, dir).Train, datasettest.Open(t, m, dir).Validation} {
		for i := range split.Len() {
			all, valid, err := split.Sequence(i, nil)
			if err != nil {
				t.Fatal(err)
			}
			tokens, targets, err := split.AppendTargets(i, []int32{7}, []int32{8})
			if err != nil || len(tokens) != 17 || len(targets) != 17 || tokens[0] != 7 || targets[0] != 8 {
				t.Fatalf("%d tokens and %d targets, %v", len(tokens), len(targets), err)
			}
			for k, target := range targets[1:] {
				want := int32(-1)
				if k >= 4 && k < 13 && k < valid {
					want = all[k+1]
				}
				if target != want || tokens[k+1] != all[k] {
					t.Fatalf("sequence %d, target %d is %d, want %d", i, k, target, want)
				}
			}
		}
	}
	for _, counted := range [][]int{{3}, {5, 5}, {-1, 4}, {0, 17}, {1, 2, 3}} {
		if err := (seal.Options{SequenceLength: 16, Counted: counted, SequencesPerShard: 1,
			ValidationShare: 0.5}).Validate(); err == nil {
			t.Errorf("%v was taken for a range", counted)
		}
	}
}
