package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

// seize locks a data directory that no program uses.
func seize(dir string) (release func(), err error) {
	if _, err := artifact.Recognize(dir); err != nil {
		return nil, err
	}
	use, err := artifact.Seize(dir)
	if err != nil {
		return nil, err
	}
	launcher, err := lockData(dir) // one of a version that knew no marks
	if err != nil {
		use.Close()
		return nil, err
	}
	return func() { launcher.Close(); use.Close() }, nil
}

func removeCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove a run: its events, links and logs; pipeline gc then frees what only it had", ArgsUsage: "RUN",
		Description: "It asks first; without a terminal it wants --yes. A data directory that a program uses is left alone.\n\nExample:\n   pipeline runs rm --yes v76-nano-8799682f",
		Flags:       []cli.Flag{dataFlag(), &cli.BoolFlag{Name: "yes", Usage: "do not ask"}},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return command.UsageError(errors.New("give one run, after all flags: pipeline runs rm [--yes] RUN"))
			}
			dir, run := dataOf(c), c.Args().First()
			j := journal.Open(dir)
			if err := knownRun(j, run); err != nil {
				return err
			}
			if !c.Bool("yes") && !confirmed(c, fmt.Sprintf("remove run %s (%s)?", run, j.RunDir(run))) {
				return errors.New("nothing is removed: add --yes to do it")
			}
			release, err := seize(dir)
			if err != nil {
				return err
			}
			defer release()
			if err := forgetEvents(c.Context, dir, run); err != nil {
				return err
			}
			if err := os.RemoveAll(j.RunDir(run)); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "run %s is removed; pipeline gc frees what only it had made\n", run)
			return nil
		},
	}
}

// dataOf is the data directory of a subcommand, whose flag may stand before it as well.
func dataOf(c *cli.Context) string {
	for _, at := range c.Lineage() {
		if slices.Contains(at.LocalFlagNames(), "data") {
			return at.String("data")
		}
	}
	return c.String("data")
}

// confirmed asks a person; nobody answers where there is no terminal.
func confirmed(c *cli.Context, question string) bool {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false
	}
	fmt.Fprint(c.App.Writer, question+" [y/N] ")
	var answer string
	_, _ = fmt.Fscanln(os.Stdin, &answer)
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes")
}

// forgetEvents removes a run from the event server: a run of the same name begins anew then.
func forgetEvents(ctx context.Context, dir, run string) error {
	address := bus.AddressFrom(os.Getenv)
	if address.URL == "" {
		store := filepath.Join(dir, "nats")
		if _, err := os.Stat(store); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		server, err := bus.StartServer(store, 0)
		if err != nil {
			return err
		}
		defer server.Stop()
		address = server.Address()
	}
	b, err := bus.Connect(ctx, address, "pipeline")
	if err != nil {
		return err
	}
	defer b.Close()
	return b.ForgetRun(ctx, run)
}

func gcCommand() *cli.Command {
	return &cli.Command{
		Name: "gc", Usage: "free the artifacts that no run names and no unfinished job needs",
		Description: "Without --yes it only says what would go. A data directory that a program uses is left alone.\n\nExample:\n   pipeline gc --keep-checkpoints 2 --yes",
		Flags: []cli.Flag{
			dataFlag(), jsonFlag(), &cli.BoolFlag{Name: "yes", Usage: "do it"},
			&cli.IntFlag{Name: "keep-checkpoints", Usage: "of finished runs keep the last `N` checkpoints and the best, and free the others (0: keep all)"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return command.UsageError(fmt.Errorf("%s: gc takes no arguments", c.Args().First()))
			}
			if c.Int("keep-checkpoints") < 0 {
				return command.UsageError(errors.New("--keep-checkpoints: give a number from 1; 0 keeps all"))
			}
			dir := c.String("data")
			release, err := seize(dir)
			if err != nil {
				return err
			}
			defer release()
			unnamed, err := unnamedObjects(dir, c.Int("keep-checkpoints"))
			if err != nil {
				return err
			}
			var size int64
			for _, o := range unnamed {
				size += o.Size
				if !c.Bool("yes") {
					continue
				}
				if err := artifact.RemoveObject(dir, o.Digest); err != nil {
					return err
				}
			}
			what := fmt.Sprintf("%s, %s", plural(len(unnamed), "artifact"), results.Size(size))
			switch {
			case c.Bool("json"):
				fmt.Fprintf(c.App.Writer, `{"type":"gc","artifacts":%d,"bytes":%d,"removed":%v}`+"\n", len(unnamed), size, c.Bool("yes"))
			case c.Bool("yes"):
				fmt.Fprintln(c.App.Writer, what+": removed")
			default:
				fmt.Fprintln(c.App.Writer, what+" that no run names; add --yes to remove them")
			}
			return nil
		},
	}
}

// anyDigest is how artifacts and jobs are named in events and records: it is searched for in their bytes, so that also what
// an event of an unknown kind names is kept.
var anyDigest = regexp.MustCompile(`[0-9a-f]{64}`)

// unnamedObjects lists what no run names and no unfinished job has made or works on. With keep, of the checkpoints of each
// finished run only the last ones and the best count as named.
func unnamedObjects(dir string, keep int) ([]artifact.Object, error) {
	all, err := artifact.Objects(dir)
	if err != nil {
		return nil, err
	}
	n := naming{dir: dir, named: map[string]bool{}}
	if err := n.run(filepath.Join(dir, "runs")); err != nil {
		return nil, err
	}
	if err := n.unfinishedJobs(); err != nil {
		return nil, err
	}
	if keep > 0 {
		if err := n.thin(keep); err != nil {
			return nil, err
		}
	}
	var unnamed []artifact.Object
	for _, o := range all {
		if !n.named[o.Digest] {
			unnamed = append(unnamed, o)
		}
	}
	return unnamed, nil
}

// naming collects the digests that are named somewhere.
type naming struct {
	dir   string
	named map[string]bool
}

// run takes all that the files under a folder of runs name: events, links to artifacts, and what those name in turn.
func (n *naming) run(folder string) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			n.take([]byte(target))
			return err
		case strings.HasSuffix(path, ".msgpack") && d.Type().IsRegular():
			return n.takeFile(path)
		}
		return nil
	})
}

// unfinishedJobs takes all that is recorded of jobs that have not ended.
func (n *naming) unfinishedJobs() error {
	jobs, err := filepath.Glob(filepath.Join(n.dir, "jobs", "*", "*"))
	if err != nil {
		return err
	}
	for _, job := range jobs {
		if _, err := os.Stat(filepath.Join(job, "record.msgpack")); err == nil {
			continue // what it made is the runs' to name; without it the job is done again
		}
		err := filepath.WalkDir(job, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".msgpack") {
				return err
			}
			return n.takeFile(path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *naming) takeFile(path string) error {
	b, err := os.ReadFile(path)
	if err == nil {
		n.take(b)
	}
	return err
}

func (n *naming) take(b []byte) {
	for _, found := range anyDigest.FindAll(b, -1) {
		name := string(found)
		if n.named[name] {
			continue
		}
		n.named[name] = true
		n.inside(name)
	}
}

// mostText bounds the artifacts in which others are looked for, in bytes: manifests and definitions are small.
const mostText = 64 << 20

// inside takes what is named by an artifact that is text, such as a manifest, or by the record of a finished job, such as
// the checkpoint that a finetuning began from.
func (n *naming) inside(name string) {
	if b, err := os.ReadFile(filepath.Join(n.dir, "jobs", name[:2], name, "record.msgpack")); err == nil {
		n.take(b)
	}
	f, err := os.Open(artifact.ObjectPath(n.dir, name))
	if err != nil {
		return
	}
	defer f.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(f, first); err != nil || first[0] != '{' {
		return
	}
	if b, err := io.ReadAll(io.LimitReader(f, mostText)); err == nil {
		n.take(b)
	}
}
