package command

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Threads are those of the flag, those of the environment where there is no flag, and otherwise one a processor.
func TestThreads(t *testing.T) {
	for _, c := range []struct {
		flags, env string
		want       int // 0: a usage error
	}{
		{"", "", runtime.NumCPU()}, {"--threads 0", "", runtime.NumCPU()}, {"--threads 1", "", 1},
		{"--threads 4096", "", 4096}, {"--threads 4097", "", 0}, {"--threads -1", "", 0},
		{"", "3", 3}, {"--threads 5", "3", 5}, {"", "4097", 0},
	} {
		t.Run(fmt.Sprintf("flags %q, environment %q", c.flags, c.env), func(t *testing.T) {
			t.Setenv("BITNET1_THREADS", c.env)
			got := 0
			app := &cli.App{Name: "program", Flags: []cli.Flag{ThreadsFlag("threads")}, Writer: io.Discard,
				Action: func(c *cli.Context) error { got = Threads(c); return nil }}
			var said strings.Builder
			app.ErrWriter = &said
			status := ExitStatus("program", app.Run(append([]string{"program"}, strings.Fields(c.flags)...)), &said)
			if got != c.want || (status == Usage) != (c.want == 0) {
				t.Errorf("%d threads, want %d; status %d: %s", got, c.want, status, &said)
			}
		})
	}
}
