package main

import (
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

// Runs lie beside each other in a table of their last checkpoints, a CSV of all steps and a picture.
func TestCurves(t *testing.T) {
	data := t.TempDir()
	j := journal.Open(data)
	for i, run := range []string{"v75", "v76"} {
		at := filepath.Join(j.RunDir(run), "train", "train.jsonl")
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		for step := 1; step <= 500; step++ {
			fmt.Fprintf(&log, `{"event":"step","step":%d,"tokens":%d,"train_bpc":%v}`+"\n", step, 1000*step,
				float64(5+i)+10/float64(step))
		}
		fmt.Fprintf(&log, `{"event":"checkpoint","step":500,"tokens":500000,"train_bpc":5.5,"val_bpc":%d}`+"\n", 6+i)
		if err := os.WriteFile(at, []byte(log.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		model := artifact.Ref{Digest: fmt.Sprintf("%064d", i+1), Name: "m"}
		announce(t, j, run,
			event.CheckpointSaved{Step: 250, Tokens: 250000, Model: artifact.Ref{Digest: fmt.Sprintf("%064d", 9), Name: "m"}})
		announce(t, j, run, event.CheckpointSaved{Step: 500, Tokens: 500000, TrainBits: 5.5, Model: model})
		announce(t, j, run, event.EvaluationWritten{Step: 250, BitsPerToken: 9})
		for _, d := range fakeDeclarations() {
			if err := results.Declare(j, run, d); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 {
			announce(t, j, run,
				event.EvaluationWritten{Step: 500, Model: model, Report: model, BitsPerToken: 6.25, BitsPerByte: 1.5})
			announce(t, j, run, event.ProbeWritten{Step: 500, Model: model, Health: model, TopLayer: 1, TopHead: 2, TopIPMR: 0.5,
				CopyAccuracy: 0.25})
		}
	}
	said, err := run(t, "curves", "--data", data, "--name", "two", "--run", "v75", "--run", "pointing=v76")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(data, "experiments", "two")
	markdown, err := os.ReadFile(filepath.Join(out, "two.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| v75 | 500 | 0.500 |  |  |  |",
		"| pointing | 500 | 0.500 | 6.250 | H2 | 50.0 % |", "- `IPMR`: how often a head copies (higher is better)",
	} {
		if !strings.Contains(string(markdown), want) {
			t.Errorf("the table lacks %s:\n%s", want, markdown)
		}
	}
	if want := "pointing  500             0.500       6.250  H2        50.0 %\n"; !strings.Contains(said, want) {
		t.Errorf("the screen lacks %s:\n%s", want, said)
	}
	csv, err := os.ReadFile(filepath.Join(out, "two.csv"))
	if err != nil || !strings.Contains(string(csv), "\nv75,2,2000,10,,\n") ||
		!strings.HasSuffix(string(csv), "\npointing,500,500000,6.02,5.5,7\n") {
		t.Errorf("CSV (%v):\n%s", err, csv)
	}
	f, err := os.Open(filepath.Join(out, "two.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if picture, err := png.Decode(f); err != nil || picture.Bounds().Dx() < 400 {
		t.Errorf("picture: %v", err)
	}

	for _, runs := range [][]string{{"--run", "v75", "--run", "v75"}, {"--run", "a=v75", "--run", "b=v75"},
		{"--run", "a=v75", "--run", "a=v76"}} {
		if _, err := run(t, append([]string{"curves", "--data", data}, runs...)...); err == nil ||
			!strings.Contains(err.Error(), "given before") {
			t.Errorf("%v: %v", runs, err)
		}
	}
	if _, err := run(t, "curves", "--data", data, "--run", "v77"); err == nil || !strings.Contains(err.Error(), "v77") {
		t.Errorf("a run that is not there: %v", err)
	}
}
