package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
)

// What is trained with separate documents says so, and measured by that, has the loss that the trainer measured; packed
// is the default and something else.
func TestSeparateDocuments(t *testing.T) {
	var texts []string
	for i := range 60 {
		texts = append(texts, fmt.Sprint(strings.Repeat("ab\x00", i%5), i))
	}
	manifest := writeDataset(t, 32, texts...)
	dirs := map[string]string{}
	for name, flags := range map[string][]string{"default": nil, "packed": {"--documents", "packed"},
		"separate": {"--documents", "separate"}} {
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
	data := measuretest.Open(t, manifest)
	for _, name := range []string{"packed", "separate"} {
		marks := checkpointLines(t, dirs[name])
		want := marks[len(marks)-1].ValBPC
		if got := measured(t, last(name), data, data.Validation.Len()); want == nil || math.Abs(got-*want) > 1e-6 {
			t.Errorf("%s: the checkpoint has a loss of %v bits, the trainer measured %v", name, got, want)
		}
	}
}

func equalParameters(a, b checkpoint.Model) bool {
	return slices.EqualFunc(a.Parameters, b.Parameters,
		func(p, q model.Parameter) bool { return slices.Equal(p.Data, q.Data) })
}

// A checkpoint to start from that was trained otherwise is said to be.
func TestWarnsOfOtherDocuments(t *testing.T) {
	manifest, dir := writeDataset(t, 16, proverbs()...), t.TempDir()
	trainWith(t, small(manifest, dir, "--steps", "1", "--warmup", "0")...)
	for _, documents := range []string{"packed", "separate"} {
		cmd, said := program(t, small(manifest, t.TempDir(), "--steps", "1", "--warmup", "0", "--documents", documents,
			"--init", filepath.Join(dir, "step-000001.safetensors"))...)
		if err := cmd.Run(); err != nil ||
			strings.Contains(said.String(), "trained with packed documents") != (documents == "separate") {
			t.Errorf("%s documents: %v\n%s", documents, err, said)
		}
	}
}
