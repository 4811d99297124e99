package main

import (
	"strings"
	"testing"

	"bitnet1/shared/data/seal"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/measure/measuretest"
)

func TestMain(m *testing.M) { measuretest.Main(m, main) }

// A model writes the rest of a sequence, however long the prompt is, and nothing where there is no rest or no prompt.
func TestPrompts(t *testing.T) {
	const tokens = 16
	model := measuretest.Checkpoint(t, measuretest.Config(tokens), checkpoint.Provenance{Step: 7, Mix: 1})
	manifest := measuretest.Sealed(t, seal.Options{SequenceLength: tokens, ValidationShare: 0.4, Seed: 3},
		measuretest.Proverbs()...)
	for prompt, right := range map[string]bool{"1": true, "15": true, "0": false, "-3": false, "16": false} {
		cmd, said := measuretest.Program(t, "--in", model, "--dataset", manifest, "--out", t.TempDir(), "--prompt",
			prompt)
		err := cmd.Run()
		switch {
		case right && (err != nil || !strings.Contains(said.String(), "checkpoint 7 wrote: ")):
			t.Errorf("prompt %s: %v: %s", prompt, err, said)
		case !right && (err == nil || !strings.Contains(said.String(), "a sequence has 16 tokens: use 1 to 15")):
			t.Errorf("prompt %s: %v: %s", prompt, err, said)
		}
	}
}
