package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/checkpoint"
	"bitnet1/shared/dataset"
	"bitnet1/shared/model"
)

// What is trained with separate documents says so, and measured by that, has the loss that the trainer measured; packed is the default
// and something else.
func TestSeparateDocuments(t *testing.T) {
	var texts []string
	for i := range 60 {
		texts = append(texts, fmt.Sprint(strings.Repeat("ab", i%5), i))
	}
	manifest := writeDataset(t, 32, texts...)
	dirs := map[string]string{}
	for name, flags := range map[string][]string{"default": nil, "packed": {"--documents", "packed"}, "separate": {"--documents", "separate"}} {
		dirs[name] = t.TempDir()
		trainWith(t, small(manifest, dirs[name], append(flags, "--steps", "6", "--validation-sequences", "1000")...)...)
	}
	last := func(name string) string { return filepath.Join(dirs[name], "step-000006.safetensors") }
	packed, separate := readCheckpoint(t, last("packed")), readCheckpoint(t, last("separate"))
	if got := readCheckpoint(t, last("default")); got.Documents != packed.Documents || !equalParameters(got, packed) {
		t.Error("packed is not the default")
	}
	if equalParameters(packed, separate) {
		t.Error("separate documents train what packed ones do")
	}
	if want := (model.Documents{Separate: true, EndOfText: 256}); separate.Documents != want || packed.Documents.Separate {
		t.Errorf("checkpoints say %+v and %+v", packed.Documents, separate.Documents)
	}
	for _, name := range []string{"packed", "separate"} {
		want := loggedLoss(t, filepath.Join(dirs[name], logName))
		if got := validationLoss(t, manifest, last(name)); math.Abs(got-want) > 1e-6 {
			t.Errorf("%s: the checkpoint has a loss of %v bits, the trainer measured %v", name, got, want)
		}
	}
}

func equalParameters(a, b checkpoint.Model) bool {
	return slices.EqualFunc(a.Parameters, b.Parameters, func(p, q model.Parameter) bool { return slices.Equal(p.Data, q.Data) })
}

// loggedLoss is that of the last checkpoint, in bits.
func loggedLoss(t *testing.T, path string) (bits float64) {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		var l checkpointLine
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		if l.ValBPC != nil {
			bits = *l.ValBPC
		}
	}
	return bits
}

// validationLoss runs a checkpoint as it says over all validation sequences.
func validationLoss(t *testing.T, manifest, path string) float64 {
	t.Helper()
	data, m, err := dataset.Load(manifest, func(s dataset.Shard) (string, error) { return filepath.Join(filepath.Dir(manifest), s.Name), nil })
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	net, settings, err := f.Inference(cpu.New(cpu.Options{}), 1, m.SequenceLength)
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	count := 0
	for i := range data.Validation.Len() {
		tokens, targets, err := data.Validation.AppendTargets(i, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		losses, err := net.Losses(tokens, targets, settings)
		if err != nil {
			t.Fatal(err)
		}
		for k, loss := range losses {
			if targets[k] >= 0 {
				sum, count = sum+float64(loss), count+1
			}
		}
	}
	return sum / float64(count) / math.Ln2
}
