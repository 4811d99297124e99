package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/run/stage"
)

// asProgram makes the test's own binary be the stage's program.
const asProgram = "BITNET1_TEST_SHARD"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(stage.Main(spec(), os.Args))
	}
	os.Exit(m.Run())
}

// says runs the program and returns its exit status and what it says.
func says(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"run"}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestNothingToSeal: where no documents are left, the stage says why and ends, at the first try.
func TestNothingToSeal(t *testing.T) {
	dir := t.TempDir()
	a := batch(t, dir, "a", "It rains in Spain.", "It pours.")
	if status, said := says(t, "--in", a, "--out", filepath.Join(dir, "earlier"), "--duplicates", "exact"); status != 0 {
		t.Fatal(said)
	}
	known := filepath.Join(dir, "earlier", seal.TextsName)
	for want, args := range map[string][]string{
		"there are no documents":                          {"--in", batch(t, dir, "none")},
		"datasets in known have the texts of all":         {"--in", a, "--duplicates", "exact", "--known", known},
		"no source matches b/* in the mixture":            {"--in", a, "--mixture", "a=1,b/*=2"},
		"source a is in no part of the mixture":           {"--in", a, "--mixture", "x/**=1"},
		"a sequence length of 0: it must be positive":     {"--in", a, "--sequence-length", "0"},
		"a similarity of -0.1: it must lie between 0 and": {"--in", a, "--similarity", "-0.1"},
		"a validation share of 1: it must be below 1":     {"--in", a, "--validation-share", "1"},
	} {
		status, said := says(t, append(args, "--out", filepath.Join(dir, "out"))...)
		if status == 0 || !strings.Contains(said, want) || strings.Contains(said, "panic") ||
			strings.Contains(said, "attempt") {
			t.Errorf("%v: status %d, want %q in\n%s", args, status, want, said)
		}
	}
}

// TestSmallest: documents of no bytes, one document, and one token make datasets.
func TestSmallest(t *testing.T) {
	dir := t.TempDir()
	for name, texts := range map[string][]string{"empty": {"", ""}, "one": {"It rains in Spain, and it pours."},
		"nothing": {""}} {
		out := filepath.Join(dir, name+".out")
		status, said := says(t, "--in", batch(t, dir, name, texts...), "--out", out, "--sequence-length", "4")
		data, err := os.ReadFile(filepath.Join(out, "manifest.json"))
		if status != 0 || err != nil {
			t.Fatalf("%s: %d, %v, %s", name, status, err, said)
		}
		m, err := dataset.ParseManifest(data)
		if err != nil {
			t.Fatal(name, err)
		}
		if none := m.Splits.Validation.Sequences == 0; none != (name == "nothing") ||
			none != strings.Contains(said, "no validation split") {
			t.Errorf("%s: %+v\n%s", name, m.Splits, said)
		}
		report, err := os.ReadFile(filepath.Join(out, "dataset.md"))
		if err != nil || strings.Contains(string(report), "The only document is divided") != (name == "one") {
			t.Errorf("%s: %v, %s", name, err, report)
		}
	}
}

// A dataset of less text than half a sequence is mostly padding, which the stage says.
func TestSequencesLongerThanTheText(t *testing.T) {
	dir := t.TempDir()
	in := batch(t, dir, "a", "It rains in Spain,", " and it pours.")
	for flags, warned := range map[string]bool{
		"--sequence-length 4": false, "--sequence-length 1000": true,
		"--sequence-length 1000 --counted-targets 1,4": false, // the padding is meant
	} {
		args := append([]string{"--in", in, "--out", filepath.Join(dir, flags)}, strings.Fields(flags)...)
		status, said := says(t, args...)
		if status != 0 || warned != strings.Contains(said, "Choose a smaller sequence_length") {
			t.Errorf("%s: status %d: %s", flags, status, said)
		}
	}
}

// TestExplicitZeros: a zero that is given is the value, and stands in what is made.
func TestExplicitZeros(t *testing.T) {
	dir := t.TempDir()
	text := ""
	for i := range 60 {
		text += fmt.Sprintf("wizard%d ", i)
	}
	in := batch(t, dir, "a", text+"today", text+"tomorrow", "Something else altogether, in other words.")
	out := filepath.Join(dir, "out")
	status, said := says(t, "--in", in, "--out", out, "--validation-share", "0", "--similarity", "0", "--duplicates",
		"near", "--seed", "0", "--sequences-per-shard", "0")
	data, err := os.ReadFile(filepath.Join(out, "manifest.json"))
	if status != 0 || err != nil || !strings.Contains(said, "validation_share is 0") {
		t.Fatalf("%d, %v, %s", status, err, said)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	duplicates, _ := m["duplicates"].(map[string]any)
	if m["validation_share"] != 0.0 || m["seed"] != 0.0 || duplicates["similarity"] != 0.0 || duplicates["near"] != 1.0 {
		t.Errorf("%s", data)
	}
}

// A document is in one split, whole: where the large one of a few falls to validation, the stage says so, and how to
// mend it.
func TestMostTokensInValidation(t *testing.T) {
	dir := t.TempDir()
	in := batch(t, dir, "few", "one", "two", "three", strings.Repeat("It rains in Spain, and it pours. ", 40))
	warned, quiet := 0, 0
	for seed := range 8 {
		out := filepath.Join(dir, strconv.Itoa(seed))
		status, said := says(t, "--in", in, "--out", out, "--sequence-length", "4", "--seed", strconv.Itoa(seed))
		data, err := os.ReadFile(filepath.Join(out, "manifest.json"))
		if status != 0 || err != nil {
			t.Fatal(status, err, said)
		}
		m, err := dataset.ParseManifest(data)
		if err != nil {
			t.Fatal(err)
		}
		most := m.Splits.Validation.Tokens > m.Splits.Train.Tokens
		if most {
			warned++
		} else {
			quiet++
		}
		if most != strings.Contains(said, "take another seed: --seed "+strconv.Itoa(seed+1)) {
			t.Errorf("seed %d: %d tokens of validation, %d of training: %s", seed, m.Splits.Validation.Tokens,
				m.Splits.Train.Tokens, said)
		}
	}
	if warned == 0 || quiet == 0 {
		t.Errorf("of 8 seeds %d gave the large document to validation, and %d did not", warned, quiet)
	}
}
