package progress

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A line of 80 columns, and one of 60, has what matters of a training.
func TestALineFitsItsWidth(t *testing.T) {
	t.Parallel()
	line := Line{
		Stage: "train", State: Working, Left: 18 * time.Second,
		Report: Report{Done: 133, Total: 600, Unit: "steps", Values: map[string]float64{
			"tokens_per_second": 106e3, "loss": 3.656, "val_bpc": 3.679, "learning_rate": 0.0029,
		}},
	}
	for width, want := range map[int]string{
		0:  "train     working  133/600 steps  106 k tokens/s  18s left  loss 3.656 bits/token  validation 3.679  lr 0.0029",
		88: "train     working  133/600 steps  106 k tokens/s  18s left  loss 3.656  validation 3.679",
		80: "train     133/600 steps  106 k tokens/s  18s left  loss 3.656  validation 3.679",
		60: "train     133/600  106 k/s  18s left  loss 3.656  val 3.679",
		58: "train  133/600  106 k/s  18s left  loss 3.656  val 3.679",
		50: "train  133/600  18s left  loss 3.656  val 3.679",
		10: "train  133",
	} {
		if got := line.Text(width); got != want {
			t.Errorf("in %d columns\n%s\nwant\n%s", width, got, want)
		}
	}
	for width := 1; width < 130; width++ {
		if got := line.Text(width); utf8.RuneCountInString(got) > width {
			t.Errorf("%q has more than %d columns", got, width)
		}
	}
	for want, l := range map[string]Line{
		"pack      waiting":          {Stage: "pack", State: "waiting"},
		"pack      done  4/4 events": {Stage: "pack", State: "done", Report: Report{Done: 4, Total: 4, Unit: "events"}},
		"probe     1/2 s  3h20m left": {Stage: "probe", Report: Report{Done: 1, Total: 2, Unit: "s"},
			Left: 3*time.Hour + 20*time.Minute},
		"probe     1/2 s  12m30s left": {Stage: "probe", Report: Report{Done: 1, Total: 2, Unit: "s"},
			Left: 12*time.Minute + 30*time.Second},
		"probe     1/2 s  1.5 k bytes/s": {Stage: "probe",
			Report: Report{Done: 1, Total: 2, Unit: "s", Values: map[string]float64{"bytes_per_second": 1500}}},
	} {
		if got := l.Text(0); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	failed := line
	if failed.State = "failed"; !strings.Contains(failed.Text(60), "failed") {
		t.Errorf("a narrow line hides that the stage failed: %s", failed.Text(60))
	}
}

func TestTimeLeft(t *testing.T) {
	t.Parallel()
	half := Report{Done: 5, Total: 10}
	for _, c := range []struct {
		p       Report
		before  float64
		elapsed time.Duration
		want    time.Duration
	}{
		{half, 0, 10 * time.Second, 10 * time.Second},
		{half, 0.4, 10 * time.Second, 50 * time.Second}, // what was done before took no time
		{half, 0, time.Millisecond, 0},
		{half, 0.5, time.Minute, 0},
		{Report{Done: 10, Total: 10, Values: map[string]float64{"seconds_left": 3}}, 0, time.Minute, 0},
		{Report{Done: 5, Total: 10, Values: map[string]float64{"seconds_left": 3}}, 0, time.Minute, 3 * time.Second},
		{Report{}, 0, time.Minute, 0},
	} {
		if got := LeftOf(c.p, c.before, c.elapsed); (got - c.want).Abs() > time.Millisecond {
			t.Errorf("%+v: %s left, want %s", c, got, c.want)
		}
	}
}
