package command

import (
	"runtime"

	"github.com/urfave/cli/v2"
)

// mostThreads bounds ThreadsFlag: every thread has memory of its own, and a slip of the keyboard could take all of it.
const mostThreads = 4096

// ThreadsFlag says how many threads compute, 0 for one a processor. Threads reads it.
func ThreadsFlag(usage string) cli.Flag {
	return &cli.IntFlag{Name: "threads", Value: runtime.NumCPU(), EnvVars: []string{"BITNET1_THREADS"}, Usage: usage,
		Action: func(_ *cli.Context, n int) error {
			if n < 0 || n > mostThreads {
				return Usagef("--threads %d: use 1 to %d, or 0 for one a processor", n, mostThreads)
			}
			return nil
		}}
}

// Threads is the number that ThreadsFlag gives; of a command without that flag, one a processor.
func Threads(c *cli.Context) int {
	if n := c.Int("threads"); n > 0 {
		return n
	}
	return runtime.NumCPU()
}
