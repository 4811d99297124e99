package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/lm/checkpoint"
)

// A run whose numbers stop being numbers ends, says where, and keeps the checkpoints from before.
func TestDivergedRunKeepsItsLastCheckpoint(t *testing.T) {
	manifest, dir := writeDataset(t, 16, proverbs()...), t.TempDir()
	flags := small(manifest, dir, "--warmup", "40", "--learning-rate", "1e39", "--checkpoint-every", "1")
	cmd, said := program(t, flags...)
	if err := cmd.Run(); err == nil {
		t.Fatalf("a learning rate of 1e39 came to its end:\n%s", said)
	}
	for _, want := range []string{"step ", "lower learning_rate (now 1e+39)", "the last checkpoint is kept"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, said)
		}
	}
	for _, path := range checkpoints(t, dir) {
		readAll(t, path)
	}
}

// The first step that goes wrong names what it went wrong in.
func TestDivergedStepNamesTheTensor(t *testing.T) {
	manifest, dir := writeDataset(t, 16, proverbs()...), t.TempDir()
	cmd, said := program(t, small(manifest, dir, "--warmup", "0", "--learning-rate", "1e30")...)
	err := cmd.Run()
	for _, want := range []string{"step 2: the loss is ", "first among what is not finite: ", " holds ",
		"the last checkpoint is kept"} {
		if err == nil || !strings.Contains(said.String(), want) {
			t.Errorf("%v, and %q is missing in:\n%s", err, want, said)
		}
	}
	if list := checkpoints(t, dir); len(list) != 0 {
		t.Errorf("%v were saved", list)
	}
}

// A checkpoint with a number that is none is not trained from.
func TestPoisonedCheckpointIsRefused(t *testing.T) {
	manifest, dir := writeDataset(t, 16, proverbs()...), t.TempDir()
	trainWith(t, small(manifest, dir, "--steps", "2")...)
	path := checkpoints(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	poisoned := filepath.Join(t.TempDir(), "poisoned.safetensors")
	copy(whole[offsetOf(t, whole, "blocks.1.up.weight"):], []byte{0, 0, 0xc0, 0x7f}) // NaN, little-endian
	if err := os.WriteFile(poisoned, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, said := program(t, small(manifest, t.TempDir(), "--init", poisoned)...)
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), `"blocks.1.up.weight": value 0 is NaN`) {
		t.Errorf("%v, said:\n%s", err, said)
	}
}

func checkpoints(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "step-*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, path := range all {
		if !strings.Contains(path, ".state.") {
			list = append(list, path)
		}
	}
	return list
}

// readAll makes sure that every value of a checkpoint is finite.
func readAll(t *testing.T, path string) {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for p, err := range f.Parameters() {
		if wrong := p.NotFinite(); err != nil || wrong != "" {
			t.Errorf("%s: %v %s", path, err, wrong)
		}
	}
}

// offsetOf is where a tensor begins in the bytes of a safetensors file.
func offsetOf(t *testing.T, file []byte, name string) int {
	t.Helper()
	var header map[string]json.RawMessage
	n := int(file[0]) | int(file[1])<<8 | int(file[2])<<16
	var tensor struct {
		Offsets []int `json:"data_offsets"`
	}
	if err := json.NewDecoder(bytes.NewReader(file[8 : 8+n])).Decode(&header); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(header[name], &tensor); err != nil || len(tensor.Offsets) != 2 {
		t.Fatalf("%s: %v", header[name], err)
	}
	return 8 + n + tensor.Offsets[0]
}
