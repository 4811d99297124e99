// Command chaos runs a small pipeline again and again while it kills, stops and restarts stages, launcher and event
// server, and compares every artifact and the history of events with those of an undisturbed run. The faults follow
// from a seed: what happens to whom, and at which moment of the protocol. It does not look for faults of disks or of
// machines.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
)

func main() {
	os.Exit(command.Main(newApp(), os.Args))
}

func newApp() *cli.App {
	return &cli.App{
		Name: "chaos", Usage: "test whether a disturbed run ends with the same bytes as one that is not",
		ArgsUsage: "[-- WORD …]", HideVersion: true, HideHelpCommand: true,
		Description: "WORDs are flags and the file of another pipeline, as pipeline run takes them; without any, a small " +
			"pipeline is run.\n\nExamples:\n   chaos\n   chaos --rounds 1 --seed 1234\n" +
			"   chaos --cluster --rounds 5\n   chaos --rounds 1000 -- --preset nano pipelines/v76.yml",
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "seed", Usage: "seed of the first round; the next rounds count on (default: random)"},
			&cli.IntFlag{Name: "faults", Value: 200, Usage: "rounds go on until so many faults have struck"},
			&cli.IntFlag{Name: "rounds", Usage: "make so many rounds, however many faults strike"},
			&cli.IntFlag{Name: "each", Value: 14, Usage: "faults of a round"},
			&cli.BoolFlag{Name: "cluster", Usage: "the event server is a cluster of three, whose servers are cut off " +
				"from one another as well"},
			&cli.DurationFlag{Name: "ack-wait", Value: 2 * time.Second, Usage: "time without a sign of life after which the " +
				"server gives a job to another worker; a stopped process stands still for longer"},
			&cli.DurationFlag{Name: "limit", Value: 5 * time.Minute, Usage: "longest time that a round may take"},
			&cli.StringFlag{Name: "programs", Usage: "`DIR`ectory of the programs (default: where this program is)"},
			&cli.StringFlag{Name: "work", Usage: "`DIR`ectory for the runs; what is in it is kept where a round fails " +
				"(default: a temporary one)"},
		},
		Commands:       []*cli.Command{brokerCommand()},
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   command.OnUsageError,
		Action:         run,
	}
}

// errDiffers ends a campaign. What differs has been printed.
var errDiffers = errors.New("a disturbed run did not end as an undisturbed one")

func run(c *cli.Context) (err error) {
	if runtime.GOOS != "linux" {
		return errors.New("chaos finds the processes of a run in /proc: it needs Linux")
	}
	for _, name := range []string{"faults", "each"} {
		if n := c.Int(name); n < 1 {
			return command.Usagef("--%s %d: use 1 or more", name, n)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	k := &campaign{
		self: self, programs: c.String("programs"), dir: c.String("work"), words: c.Args().Slice(), out: c.App.Writer,
		each: c.Int("each"), servers: 1, ackWait: c.Duration("ack-wait"), limit: c.Duration("limit"),
	}
	if c.Bool("cluster") {
		k.servers = clusterSize
	}
	if k.programs == "" {
		k.programs = filepath.Dir(self)
	}
	if k.dir == "" {
		if k.dir, err = os.MkdirTemp("", "chaos-"); err != nil {
			return err
		}
		defer func() {
			if !errors.Is(err, errDiffers) {
				os.RemoveAll(k.dir)
			}
		}()
	}
	seed := c.Uint64("seed")
	if !c.IsSet("seed") {
		seed = rand.Uint64N(1e9)
	}
	return k.run(c.Context, seed, c.Int("rounds"), c.Int("faults"))
}

// run makes rounds until enough faults have struck, or as many rounds as are asked for.
func (k *campaign) run(ctx context.Context, seed uint64, rounds, faults int) error {
	if err := k.prepare(ctx); err != nil {
		return err
	}
	began, struck := time.Now(), 0
	for round := 0; rounds == 0 && struck < faults || round < rounds; round++ {
		n, err := k.round(ctx, seed+uint64(round))
		struck += n
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			flags := ""
			if k.servers > 1 {
				flags = " --cluster"
			}
			fmt.Fprintf(k.out, "FAILED  seed %d\n%v\nWhat it left is in %s. The same faults again:\n"+
				"  chaos%s --rounds 1 --seed %d\n",
				seed+uint64(round), err, k.dir, flags, seed+uint64(round))
			return errDiffers
		}
	}
	fmt.Fprintf(k.out, "%d faults in %s: every run ended with the same artifacts and events "+
		"as one that was not disturbed\n",
		struck, time.Since(began).Round(time.Second))
	return nil
}
