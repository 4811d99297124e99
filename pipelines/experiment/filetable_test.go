package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/run/resultsfile"
)

// study is a results file of three seeds each of v76 with two streams and of v77 with two optimizers that noise alone
// tells apart, of one nano run, and of one run of another program.
func study(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for seed := range 3 {
		for _, r := range []struct {
			model, stream, optimizer string
			bits                     []float64
		}{
			{"v76", "4", "adamw", []float64{6.7, 6.68, 6.72}}, {"v76", "1", "adamw", []float64{7.1, 7.13, 7.07}},
			{"v77", "4", "muon", []float64{6.25, 6.26, 6.24}}, {"v77", "4", "other", []float64{6.252, 6.27, 6.235}},
		} {
			fmt.Fprintf(&b, `{"model":%q,"seed":%d,"parameters":{"preset":"75M","stream_bits":%s,"optimizer":%q},"steps":800,`+
				`"tokens":52428800,"seconds":%d,"results":{"validation_bits":%v,"copied":0.5}}`+"\n", r.model, seed, r.stream,
				r.optimizer, 60+seed, r.bits[seed])
		}
	}
	b.WriteString(`{"model":"v77","seed":0,"parameters":{"preset":"nano","stream_bits":4,"optimizer":"muon"},` +
		`"tokens":1000000,"results":{"validation_bits":2.65,"copied":0.75}}` + "\n")
	b.WriteString(`{"model":"dense bf16","seed":0,"hardware":"one H200","tokens":22000000,"seconds":150,` +
		`"results":{"validation_bits":6.213}}` + "\n")
	path := filepath.Join(t.TempDir(), "study.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Runs that differ in their seed alone are one row. Rows come best first, and what tells them apart names them.
func TestTable(t *testing.T) {
	path := study(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"everything": {nil, `
model       hardware  optimizer  preset  stream_bits  seeds       validation  median  M tokens  seconds
v77         -         muon       nano    4                1  2.650             2.650       1.0    -
dense bf16  one H200  -          -       -                1  6.213             6.213      22.0  150
v77         -         muon       75M     4                3  6.250 ± 0.006     6.250      52.4   61 ± 1
v77         -         other      75M     4                3  6.252 ± 0.010     6.252      52.4   61 ± 1
v76         -         adamw      75M     4                3  6.700 ± 0.012 *   6.700      52.4   61 ± 1
v76         -         adamw      75M     1                3  7.100 ± 0.017 *   7.100      52.4   61 ± 1
`},
		"against a baseline": {[]string{"--where", "preset=75M", "--baseline", "v76 stream_bits=4"}, `
model  optimizer  stream_bits  seeds       validation  median      difference  M tokens  seconds
v77    muon       4                3  6.250 ± 0.006 *   6.250  -0.450 ± 0.017      52.4   61 ± 1
v77    other      4                3  6.252 ± 0.010 *   6.252  -0.448 ± 0.022      52.4   61 ± 1
v76    adamw      4                3  6.700 ± 0.012     6.700       -              52.4   61 ± 1
v76    adamw      1                3  7.100 ± 0.017 *   7.100  +0.400 ± 0.029      52.4   61 ± 1

validation  loss on a sample of the validation text, bits per token (lower is better)
median      of validation, over seeds
difference  by how much validation is above that of the row v76 stream_bits=4
`},
		"chosen": {[]string{"--where", "model=v76,dense bf16", "--where", "stream_bits=4,", "--rows", "model", "--columns",
			"copied,tokens_per_second,steps"}, `
model       copied  k tokens/s  steps
v76          0.500     860 ± 8    800
dense bf16       -     147          -
`},
		"for a page": {[]string{"--where", "optimizer=muon,adamw,", "--where", "preset=75M,", "--rows", "model,stream_bits",
			"--columns", "seeds,validation_bits", "--markdown"}, `
| model | stream_bits | seeds | validation |
| --- | --- | ---: | ---: |
| dense bf16 |  | 1 | **6.213** |
| v77 | 4 | 3 | 6.250 ± 0.006 |
| v76 | 4 | 3 | 6.700 ± 0.012 * |
| v76 | 1 | 3 | 7.100 ± 0.017 * |

- ` + "`validation`: loss on a sample of the validation text, bits per token (lower is better)\n"},
	} {
		said, err := run(t, append(append([]string{"table"}, c.args...), path)...)
		want := strings.TrimPrefix(c.want, "\n")
		if err != nil || !strings.HasPrefix(said, want) || strings.Contains(said, "NaN") {
			t.Errorf("%s (%v):\n%s\nwant\n%s", name, err, said, want)
		}
	}
}

// A terminal of any usual width shows the table without broken lines; where names are long, numbers stand for them.
func TestTablesFit(t *testing.T) {
	runs, err := resultsfile.Read(study(t))
	if err != nil {
		t.Fatal(err)
	}
	table, err := tableOf(runs, selection{})
	if err != nil {
		t.Fatal(err)
	}
	for _, width := range []int{60, 80, 100} {
		var b bytes.Buffer
		if err := table.writeText(&b, width); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
				t.Errorf("%d of %d columns: %s", n, width, line)
			}
		}
		numbered := strings.Contains(b.String(), "\n  3  v77         -         muon ") &&
			strings.Contains(b.String(), "\n  3  6.250 ± 0.006 ") || strings.Contains(b.String(), "\n  3      3  6.250 ± 0.006 ")
		if numbered != (width < 100) {
			t.Errorf("at %d columns, rows are numbered: %v\n%s", width, numbered, &b)
		}
	}
}

// A parameter at its default is called so, or as --rows says. A row without a loss comes last. Two seeds have no
// median.
func TestTableOfSparseLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.jsonl")
	write(t, path, `{"model":"a","seed":1,"parameters":{"x":1},"tokens":9000000,"results":{"copied":0.5}}
{"model":"a","seed":1,"parameters":{"x":1,"optimizer":"muon"},"tokens":9000000,"results":{"bits_per_token":6.5}}
{"model":"a","seed":1,"parameters":{"x":2,"optimizer":"muon"},"tokens":9000000,"results":{"bits_per_token":6.25}}
{"model":"a","seed":2,"parameters":{"x":2,"optimizer":"muon"},"tokens":9000000,"results":{"bits_per_token":6.5}}
`)
	for rows, label := range map[string]string{"": "default", "optimizer=adamw,x": "adamw  "} {
		args := []string{"table"}
		if rows != "" {
			args = append(args, "--rows", rows)
		}
		want := `
optimizer  x  seeds     bits/token  M tokens
muon       2      2  6.375 ± 0.125       9.0
muon       1      1  6.500               9.0
` + label + `    1      1      -               9.0
`
		if said, err := run(t, append(args, path)...); err != nil || !strings.HasPrefix(said, want[1:]) {
			t.Errorf("%v:\n%s\nwant%s", err, said, want)
		}
	}
}

func TestTableRefusesMistakes(t *testing.T) {
	path := study(t)
	other := filepath.Join(t.TempDir(), "other.jsonl")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, content, 0o644); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.jsonl")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"give a results file":                                    {},
		"no such file":                                           {path + "l"},
		"there are no runs":                                      {empty},
		"is given twice":                                         {path, other},
		`--rows stream: unknown key "stream"`:                    {"--rows", "stream", path},
		`did you mean "validation_bits"?`:                        {"--columns", "seeds,validation_bit", path},
		"--where preset: write key=value":                        {"--where", "preset", path},
		`unknown key "presets": did you mean "preset"?`:          {"--where", "presets=75M", path},
		"no run is left; preset is 75M, nano, ":                  {"--where", "preset=300M", path},
		"two rows are called v76: --rows needs one of":           {"--rows", "model", path},
		"--rows needs one of stream_bits, too":                   {"--rows", "model", "--where", "model=v76", path},
		"--baseline v75: no row is called that; the rows are\n ": {"--baseline", "v75", path},
		"--baseline v76: model=v76 ":                             {"--baseline", "v76", path},
	} {
		if said, err := run(t, append([]string{"table"}, args...)...); err == nil || !strings.Contains(err.Error(), want) ||
			said != "" {
			t.Errorf("%v: %v, want %q in it; it printed %q", args, err, want, said)
		}
	}
}
