package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Every package that decodes bytes has a fuzz target, or testdata/unfuzzed.yml says why it needs none. `task fuzz` runs
// all targets; their seeds, and the inputs under testdata/fuzz that crashed a decoder once, run in ordinary tests.
func TestDecodersAreFuzzed(t *testing.T) {
	decodes := regexp.MustCompile(`\b((json|event|msgpack|yaml|xml)\.(Unmarshal|NewDecoder)|gob\.NewDecoder|` +
		`zip\.NewReader|csv\.NewReader|binary\.(Little|Big)Endian\.Uint)`)
	target := regexp.MustCompile(`(?m)^func Fuzz\w+\(`)
	decoders, fuzzed := map[string]bool{}, map[string]bool{}
	for _, root := range []string{"../shared", "../stages", "../pipelines", "../kernels"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			b, err := os.ReadFile(path)
			if folder := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../"); strings.HasSuffix(path, "_test.go") {
				fuzzed[folder] = fuzzed[folder] || target.Match(b)
			} else if decodes.Match(b) {
				decoders[folder] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("testdata/unfuzzed.yml")
	if err != nil {
		t.Fatal(err)
	}
	var reasons map[string]string
	if err := yaml.Unmarshal(b, &reasons); err != nil {
		t.Fatal(err)
	}
	for folder := range decoders {
		if !fuzzed[folder] && reasons[folder] == "" {
			t.Errorf("%s decodes bytes and has no fuzz target: add one, or a reason to testdata/unfuzzed.yml", folder)
		}
	}
	for folder := range reasons {
		if !decoders[folder] || fuzzed[folder] {
			t.Errorf("%s: take it out of testdata/unfuzzed.yml", folder)
		}
	}
	if len(decoders) < 20 || slices.Contains([]bool{decoders["shared/run/event"], fuzzed["shared/run/event"]}, false) {
		t.Errorf("%d packages decode bytes: this test misses most", len(decoders))
	}
}
