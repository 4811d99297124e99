package main

import (
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bitnet1/pipelines/experiment/seeds"
	"bitnet1/shared/plot"
)

// Runs of results files are drawn as the rows of their table.
func TestPlotResults(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "runs.jsonl")
	write(t, file, `{"model":"v77","seed":1,"tokens":1,"results":{"bits_per_token":6,"pack_bytes":20000000}}
{"model":"v77","seed":2,"tokens":1,"results":{"bits_per_token":5.5,"pack_bytes":20000000}}
{"model":"dense","tokens":1,"results":{"bits_per_token_4_bit":5.25,"megabytes_4_bit":40}}
`)
	picture := filepath.Join(dir, "size.png")
	if said, err := run(t, "plot", "--x", "megabytes", "--out", picture, file); err != nil {
		t.Fatal(said, err)
	}
	f, err := os.Open(picture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if p, err := png.Decode(f); err != nil || p.Bounds().Dx() < 400 {
		t.Errorf("picture: %v", err)
	}
	if _, err := run(t, "plot", "--x", "megabytes", "--out", filepath.Join(dir, "size.svg"), file); err != nil {
		t.Error(err)
	}
	svg := readFile(t, filepath.Join(dir, "size.svg"))
	if !strings.Contains(svg, "<svg") || !strings.Contains(svg, ">v77<") || !strings.Contains(svg, ">4 bit<") {
		t.Errorf("SVG:\n%.300s", svg)
	}
	if said, err := run(t, "table", "--columns", "megabytes", "--where", "model=v77", file); err != nil ||
		!strings.Contains(said, "v77         20.0\n") {
		t.Errorf("20,000,000 bytes (%v):\n%s", err, said)
	}
	for want, args := range map[string][]string{
		"must end in .png or .svg":           {"--x", "megabytes", "--out", filepath.Join(dir, "size.webp"), file},
		"no row has both sparsity and bits_": {"--x", "sparsity", "--out", picture, file},
		"give a results file":                {"--x", "megabytes", "--out", picture},
		"give --x KEY":                       {"--out", picture, file},
		"give --out FILE.png":                {"--x", "megabytes", file},
		"no run is left":                     {"--x", "megabytes", "--where", "model=v75", "--out", picture, file},
	} {
		if _, err := run(t, append([]string{"plot"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q in it", args, err, want)
		}
	}
}

// A point is a mean over seeds. A row has a point for each form in which it has both results, in their order.
func TestPointsOf(t *testing.T) {
	o := overSeeds{labels: []column{{Name: "model"}, {Name: "muon_steps"}}, rows: []seedRow{
		{labels: []string{"v77", "3"}, values: map[string]seeds.Sample{
			"megabytes": {1: 20, 2: 20}, "bits": {1: 6, 2: 5}, "bits_8_bit": {1: 4},
		}},
		{labels: []string{"dense", "3"}, values: map[string]seeds.Sample{
			"megabytes_8_bit": {1: 80}, "bits_8_bit": {1: 5}, "megabytes_4_bit": {1: 40}, "bits_4_bit": {1: 5.5},
			"megabytes_2_bit": {1: 20},
		}},
		{labels: []string{"v77", "5"}, values: map[string]seeds.Sample{"bits": {1: 6}}}, // not packed
	}}
	want := []points{
		{label: "v77, muon steps 3", at: []plot.Point{{X: 20, Y: 5.5}}, forms: []string{""}},
		{label: "dense", at: []plot.Point{{X: 40, Y: 5.5}, {X: 80, Y: 5}}, forms: []string{"4 bit", "8 bit"}},
	}
	if got, err := pointsOf(o, "megabytes", "bits"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}
