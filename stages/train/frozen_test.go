package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the frozen numbers anew")

// What a few steps of each recipe give is frozen: any change of the mathematics, the random numbers or the order of the
// data shows here. It is the same on any number of processors, with and without assembly. A change that is meant
// belongs to a new Version of the stage; then go test ./stages/train -run Frozen -update writes the numbers anew.
func TestFrozenNumbers(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the numbers are of amd64: other compilers contract products and sums")
	}
	manifest := writeDataset(t, 16, proverbs()...)
	base := t.TempDir()
	trainWith(t, small(manifest, base, "--steps", "6")...)
	var got strings.Builder
	for _, recipe := range []struct{ name, flags string }{
		{"v76", "--grad-bits 4"},
		{"v76, 4 bits of stream", "--grad-bits 4 --stream-bits 4"},
		{"v76, float gradients, weight decay", "--weight-decay 0.1 --clip 0.05"},
		{"v76, separate documents", "--grad-bits 4 --documents separate"},
		{"v75", "--grad-bits 4 --attention pointer --kshift-layers none"},
		{"softmax, K-shift alone, no ALiBi", "--attention softmax --no-kshift-self --no-alibi"},
		{"Muon", "--grad-bits 4 --optimizer muon --muon-steps 3 --muon-momentum 0.9 --muon-weight-decay 0.1"},
		{"linear to zero", "--schedule linear --final-share 0"},
		{"trapezoid", "--schedule trapezoid --cooldown 0.5"},
		{"ramps of sequences and batches", "--grad-bits 4 --sequence-start 4 --sequence-ramp 0.5 --batch-start 16 " +
			"--batch-ramp 0.75"},
		{"weight decay to zero", "--weight-decay 3 --weight-decay-schedule linear"},
		{"Muon, weight decay as the rate", "--optimizer muon --muon-weight-decay 3 --weight-decay 3 " +
			"--weight-decay-schedule rate"},
		{"bonsai", "--anneal-binarize"},
		{"truebit", "--truebit --flip-threshold 1"},
		{"finetuning", "--init " + filepath.Join(base, "step-000006.safetensors") + " --freeze codebook.* --warmup 0 " +
			"--learning-rate 1e-3 --gamma-start 0.1"},
	} {
		dir := t.TempDir()
		trainWith(t, small(manifest, dir, strings.Fields("--device cpu --steps 8 --checkpoint-every 4 "+recipe.flags)...)...)
		fmt.Fprintf(&got, "%s\n", recipe.name)
		for _, line := range steps(t, dir) {
			fmt.Fprintf(&got, "  step %d: loss %.6f, gradient %.6f, %d flipped\n", line.Step, line.TrainBPC, line.GradientNorm,
				line.Flipped)
		}
		for _, line := range checkpointLines(t, dir) {
			fmt.Fprintf(&got, "  checkpoint %d: validation %.6f\n", line.Step, *line.ValBPC)
		}
	}
	path := filepath.Join("testdata", "frozen.txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(got.String(), "\n")
	recipe := ""
	for i, line := range strings.Split(string(want), "\n") {
		if !strings.HasPrefix(line, " ") {
			recipe = line
		}
		if i >= len(lines) || lines[i] != line {
			t.Fatalf("%s: %s\nis now %s", recipe, strings.TrimSpace(line), strings.TrimSpace(lines[min(i, len(lines)-1)]))
		}
	}
}
