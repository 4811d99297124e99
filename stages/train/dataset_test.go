package main

import (
	"testing"

	"bitnet1/shared/data/seal"
	"bitnet1/shared/measure/measuretest"
)

// writeDataset seals the texts into sequences of seq tokens and returns the manifest's path.
func writeDataset(t *testing.T, seq int, texts ...string) string {
	t.Helper()
	return measuretest.Sealed(t, seal.Options{SequenceLength: seq, ValidationShare: 0.2, Seed: 3}, texts...)
}

func proverbs() []string { return measuretest.Proverbs() }
