package dataset_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/pythontest"
)

// TestPythonReadsShards reads shards as they are with the libraries that people use.
func TestPythonReadsShards(t *testing.T) {
	for _, info := range []dataset.TokenizerInfo{datasettest.Small, datasettest.Large} {
		m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 50, SequencesPerShard: 40},
			datasettest.Batch(t, info, datasettest.Synthetic(100, info)))
		d := datasettest.Open(t, m, dir)
		for _, library := range []string{"pyarrow", "polars", "duckdb"} {
			t.Run(library+"/"+info.Name, func(t *testing.T) {
				python := pythontest.Interpreter(t, "pyarrow", library)
				var got strings.Builder
				for _, shard := range m.Splits.Train.Shards {
					read := exec.Command(python, filepath.Join("testdata", "read.py"), library,
						filepath.Join(dir, shard.Name))
					var stderr strings.Builder
					read.Stderr = &stderr
					out, err := read.Output()
					if err != nil {
						t.Fatalf("%v\n%s", err, stderr.String())
					}
					got.Write(out)
				}
				if want := describe(t, d.Train); got.String() != want {
					t.Errorf("%.300s\nwant\n%.300s", got.String(), want)
				}
			})
		}
	}
}

// describe is what testdata/read.py says of a split.
func describe(t *testing.T, s *dataset.Split) string {
	t.Helper()
	var b strings.Builder
	for i := range s.Len() {
		tokens, valid, err := s.Sequence(i, nil)
		if err != nil {
			t.Fatal(err)
		}
		ranges, err := s.Ranges(i)
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for _, id := range tokens {
			sum += int64(id)
		}
		var parts []string
		for _, r := range ranges {
			parts = append(parts, fmt.Sprintf("%s:%d", r.Document, r.Length))
		}
		fmt.Fprintln(&b, valid, sum, len(tokens), strings.Join(parts, ","))
	}
	return b.String()
}
