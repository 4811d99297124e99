package resultsfile

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"bitnet1/shared/alloctest"
)

// FuzzRead reads any bytes as a results file. What is read is written and read again as it was.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"model": "v76", "parameters": {"steps": 3}, "seed": 1}` + "\n\n{}"))
	f.Add([]byte(`{"model": "v76", "seed": 1e99}`))
	examples, _ := filepath.Glob(filepath.Join("..", "..", "..", "docs", "recipes", "*.jsonl"))
	for _, path := range examples {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 4000)])
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path, again := filepath.Join(dir, "runs.jsonl"), filepath.Join(dir, "again.jsonl")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		var runs []Run
		var err error
		alloctest.AtMost(t, 1<<20+512*int64(len(b)), func() { runs, err = Read(path) })
		if err != nil || len(runs) == 0 {
			return
		}
		_ = os.Remove(again)
		if _, _, err := Add(again, runs...); err != nil {
			t.Fatalf("read and not written: %v", err)
		}
		back, err := Read(again)
		if err != nil || len(back) != len(runs) {
			t.Fatalf("%d runs came back as %d, %v", len(runs), len(back), err)
		}
		keys := map[string]Run{}
		for _, r := range back {
			keys[r.Key()] = r
		}
		for _, r := range runs {
			if _, ok := keys[r.Key()]; !ok || !reflect.DeepEqual(keys[r.Key()].Seed, r.Seed) {
				t.Fatalf("run %s is lost", r.Key())
			}
		}
	})
}
