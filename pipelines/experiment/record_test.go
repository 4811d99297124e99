package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/resultsfile"
)

// trainedFolder is what `train run --out` leaves of a training of 20 steps: its log, and its times.
func trainedFolder(t *testing.T, last string) string {
	t.Helper()
	dir := t.TempDir()
	first := strings.Repeat("1", 64)
	write(t, filepath.Join(dir, "train.jsonl"), `{"event":"step","step":10,"tokens":1000,"train_bpc":8}
{"event":"checkpoint","step":10,"tokens":1000,"train_bpc":8,"val_bpc":7.5,"best":true,"model":"`+first+`"}
{"event":"checkpoint","step":20,"tokens":2000,"train_bpc":7.25,"val_bpc":7.125,"best":true,"model":"`+last+`"}
`)
	write(t, filepath.Join(dir, "times", "train.jsonl"), `{"step":10,"seconds":0.5}
{"step":20,"seconds":0.25}
`)
	return dir
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// withRecord adds the record of the training's job.
func withRecord(t *testing.T, dir, last, params string) {
	t.Helper()
	r, err := record.Open(filepath.Join(dir, ".jobs"), "train", digest.Bytes([]byte(params)), []byte(params), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, model := range []string{strings.Repeat("1", 64), last} {
		body, err := event.Marshal(event.CheckpointSaved{
			Model: artifact.Ref{Digest: model, Kind: "checkpoint", Name: "m"}, Manifest: artifact.Ref{Digest: "dada"},
		})
		if err == nil {
			_, err = r.Add(event.CheckpointSaved{}.Kind(), body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
}

// A folder that came from another machine gives a line, whether the job's record came with it or the checkpoint.
func TestRecordFolders(t *testing.T) {
	last := strings.Repeat("2", 64)
	small := trainedFolder(t, last)
	withRecord(t, small, strings.Repeat("3", 64), `{"seed":9,"steps":7}`) // of an earlier training into the folder
	withRecord(t, small, last, `{"freeze":["codebook.*"],"seed":3,"steps":20}`)
	for name, of := range map[string]string{"step-000030": strings.Repeat("1", 64), "step-000020": last} {
		write(t, filepath.Join(small, name+"_evaluation.json"),
			fmt.Sprintf(`{"checkpoint":%q,"bits_per_token":%s.5}`, of, strings.TrimLeft(name, "step-0")))
	}
	write(t, filepath.Join(small, "step-000020_pointer_health.json"),
		fmt.Sprintf(`{"checkpoint":%q,"random_ipmr":0.25,"top":{"layer":0,"ipmr":0.75}}`, last))
	write(t, filepath.Join(small, "step-000010_induction.json"), `{"checkpoint":"an earlier one","copy_accuracy":0.125}`)
	write(t, filepath.Join(small, "step-000020_induction.json"),
		fmt.Sprintf(`{"checkpoint":%q,"copy_accuracy":0.5,"random_copy_accuracy":0.0625}`, last))
	write(t, filepath.Join(small, "step-000010.bit2"), "of an earlier checkpoint")
	write(t, filepath.Join(small, "step-000020.bit2"), "packed")
	checkpoint := tiny(t, "dada", `{"seed":4,"steps":20}`)
	whole := trainedFolder(t, digest.Bytes(checkpoint))
	write(t, filepath.Join(whole, "step-000020.safetensors"), string(checkpoint))

	file := filepath.Join(t.TempDir(), "results.jsonl")
	said, err := run(t, "record", "--results", file, "--hardware", "one H200", "v77="+small, "v77="+whole)
	if err != nil || !strings.HasSuffix(said, ": 2 runs added, 0 replaced\n") {
		t.Fatal(said, err)
	}
	want := `{"model":"v77","seed":3,"hardware":"one H200","parameters":{"freeze":["codebook.*"],"steps":20},` +
		`"dataset":"dada","checkpoint":"` + last + `","steps":20,"tokens":2000,"seconds":7.5,` +
		`"results":{"bits_per_token":20.5,"copy_accuracy":0.5,"ipmr":0.75,"pack_bytes":6,"random_copy_accuracy":0.0625,` +
		`"random_ipmr":0.25,"train_bits":7.25,"validation_bits":7.125}}` + "\n" +
		`{"model":"v77","seed":4,"hardware":"one H200","parameters":{"steps":20},"dataset":"dada","checkpoint":"` +
		digest.Bytes(checkpoint) + `","steps":20,"tokens":2000,"seconds":7.5,` +
		`"results":{"train_bits":7.25,"validation_bits":7.125}}` + "\n"
	if got := readFile(t, file); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if said, err := run(t, "record", "--results", file, "--hardware", "one H200", "v77="+whole); err != nil ||
		!strings.HasSuffix(said, ": 0 runs added, 1 replaced\n") || readFile(t, file) != want {
		t.Errorf("once more: %s, %v", said, err)
	}
}

// Lines of other programs are taken as they are. --hardware fills in what they leave open.
func TestRecordLines(t *testing.T) {
	lines := filepath.Join(t.TempDir(), "a=b.jsonl")
	write(t, lines, `{"model": "dense", "tokens": 22000000, "seconds": 150, "results": {"validation_bits": 6.213}}
{"model": "dense", "seed": 1, "hardware": "one H100", "tokens": 22, "results": {"validation_bits": 6.5}}
`)
	file := filepath.Join(t.TempDir(), "results.jsonl")
	if said, err := run(t, "record", "--results", file, "--hardware", "one H200", lines); err != nil {
		t.Fatal(said, err)
	}
	want := []resultsfile.Run{
		{Model: "dense", Seed: 1, Hardware: "one H100", Tokens: 22, Results: map[string]float64{"validation_bits": 6.5}},
		{Model: "dense", Hardware: "one H200", Tokens: 22000000, Seconds: 150,
			Results: map[string]float64{"validation_bits": 6.213}},
	}
	if runs, err := resultsfile.Read(file); err != nil || !reflect.DeepEqual(runs, want) {
		t.Errorf("%+v, %v", runs, err)
	}
}

func TestRecordRefusesMistakes(t *testing.T) {
	last := strings.Repeat("2", 64)
	bare, stale, good := trainedFolder(t, last), trainedFolder(t, last), trainedFolder(t, last)
	write(t, filepath.Join(stale, "step-000020.safetensors"), "of another training")
	withRecord(t, good, last, `{"seed":3}`)
	damaged := trainedFolder(t, last)
	withRecord(t, damaged, last, `{"seed":3}`)
	write(t, filepath.Join(damaged, "step-000020_evaluation.json"), "{")
	early := t.TempDir()
	write(t, filepath.Join(early, "train.jsonl"), `{"event":"step","step":10,"tokens":1000,"train_bpc":8}`+"\n")
	lines := filepath.Join(t.TempDir(), "lines.jsonl")
	write(t, lines, `{"model": "dense", "val_bits": 6.2}`)

	file := filepath.Join(t.TempDir(), "results.jsonl")
	for want, args := range map[string][]string{
		"give what to record":                        {},
		"is a folder: say which model it has, as":    {good},
		"whose lines name their models: leave out":   {"v77=" + lines},
		"neither the record of the training":         {"v77=" + bare},
		"of which the training log says step 20":     {"v77=" + stale},
		"report " + damaged:                          {"v77=" + damaged},
		"has no checkpoint":                          {"v77=" + early},
		"no such file":                               {"v77=" + filepath.Join(bare, "absent")},
		`unknown field "val_bits"`:                   {lines},
		"model v77, seed 3 is given twice with the ": {"v77=" + good, "v77=" + good},
	} {
		if said, err := run(t, append([]string{"record", "--results", file}, args...)...); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q in it; it says %q", args, err, want, said)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a results file was made")
	}
	if _, err := run(t, "record", good); err == nil || !strings.Contains(err.Error(), "results") {
		t.Errorf("without --results: %v", err)
	}
}
