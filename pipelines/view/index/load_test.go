package index

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"bitnet1/shared/measure/runtest"
)

var load = flag.Bool("load", false, "measure what a large data directory takes, and print it as Markdown")

// TestManyRuns finds the runs of a data directory, and asserts nothing about time. With -load there are 1,000 runs with
// 10 checkpoints each, and what it measures is printed for docs/scale.md.
func TestManyRuns(t *testing.T) {
	runs, checkpoints := 30, 2
	if *load {
		runs, checkpoints = 1000, 10
	}
	dir := t.TempDir()
	for i := range runs {
		runtest.Write(t, dir, runtest.Run{Name: fmt.Sprintf("run-%04d", i), Points: 50, Checkpoints: checkpoints,
			Finished: true, Seed: uint64(i), Rate: float64(1+i%7) / 1000, Started: int64(i+1) * 1e6})
	}
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"for the first time", "again"} {
		begun := time.Now()
		if err := x.Refresh(); err != nil || x.Count() != runs {
			t.Errorf("%d runs of %d, %v", x.Count(), runs, err)
		}
		if *load {
			fmt.Printf("| view, %s | %.2f |\n", what, time.Since(begun).Seconds())
		}
	}
}
