package stage

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/vfs"
)

func runCommand[P any, E event.Body](s Spec[P, E]) *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "one shot: from files to a folder, or over an old run",
		Description: "Either\n   " + s.Name + " run --in FILE … --out DIR\nor, over the " + s.kind() + " events of a run " +
			"that is in the data directory (of every run: '*'),\n   " + s.Name + " run --run RUN\nNeither needs an event " +
			"server; with NATS_URL set the second form announces what it made.\n\nExample:\n   " + s.Example,
		Flags: s.runFlags(),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			ctx, stop := signalContext(c.Context)
			defer stop()
			switch in := c.StringSlice("in"); {
			case len(in) > 0 && c.IsSet("run"):
				return command.Usagef("--in and --run exclude each other")
			case len(in) > 0:
				if err := unused(c, "with --in", append(s.Choice.flags(), "data", "bucket", "since", "every")...); err != nil {
					return err
				}
				return runFiles(ctx, s, c, in, c.String("out"))
			case s.Choice.file(c) != "":
				return runFile(ctx, s, c)
			case c.IsSet("run"):
				if err := unused(c, "with --run", "out"); err != nil {
					return err
				}
				if len(presetFlag(s)) > 0 && given(c, "preset") {
					return command.Usagef("--preset is for --in FILE … --out DIR: a run has its own parameters")
				}
				return runOver(ctx, s, c)
			default:
				return command.Usagef("say what to work on: --in FILE … --out DIR, or --run RUN")
			}
		},
	}
}

// runFile works on the file that the flag of the Choice names. Without --out the folder has the stage's name.
func runFile[P any, E event.Body](ctx context.Context, s Spec[P, E], c *cli.Context) error {
	file := s.Choice.file(c)
	if _, err := os.Stat(file); err != nil {
		return command.Usagef("--%s %s is no file here; to choose among the %ss of a run, say of which: --run RUN",
			s.Choice.Noun, file, s.Choice.Noun)
	}
	if err := unused(c, "with --"+s.Choice.Noun+" FILE", "data", "bucket", "since", "every"); err != nil {
		return err
	}
	return runFiles(ctx, s, c, []string{file}, cmp.Or(c.String("out"), s.Name))
}

// runFlags are those of the one-shot form. Which of them one of its two forms leaves unused, it refuses.
func (s Spec[P, E]) runFlags() []cli.Flag {
	more := []cli.Flag{
		&cli.StringSliceFlag{Name: "in", Usage: "input `FILE`s"},
		&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory, with files"},
		&cli.BoolFlag{Name: "force", Usage: "begin anew, whatever is recorded or was left unfinished"},
	}
	if s.OnDataset != nil {
		more = append(more,
			&cli.StringSliceFlag{Name: "dataset", Usage: "`MANIFEST` of the dataset: the one that goes with --in, or another " +
				"than the run's with --run; several have results each"})
	}
	if s.Choice != nil {
		more = append(more, s.Choice.flag())
	}
	if s.OneShot != nil {
		more = append(more, s.OneShot.Flags...)
	}
	more = append(more, spanFlags(s.Choice)...)
	return s.flags(append(more, presetFlag(s)...)...)
}

// unused refuses flags that a form does nothing with.
func unused(c *cli.Context, form string, names ...string) error {
	for _, name := range names {
		if given(c, name) {
			return command.Usagef("--%s does nothing %s: leave it out", name, form)
		}
	}
	return nil
}

// presetFlag is the flag of a preset, for stages of which presets say something and which have no such parameter: there
// the parameter's flag is the preset's too.
func presetFlag[P any, E event.Body](s Spec[P, E]) []cli.Flag {
	for _, f := range param.Fields(s.Defaults) {
		if f.Key == "preset" {
			return nil
		}
	}
	for _, name := range definition.Presets() {
		if section, err := definition.PresetSection(name, s.Name); err == nil && section != nil {
			names := strings.Join(definition.Presets(), ", ")
			return []cli.Flag{
				&cli.StringFlag{Name: "preset", Usage: "with --in: what the preset of a " +
					"pipeline says of this stage (" + names + ")"}}
		}
	}
	return nil
}

// runFiles works on files that the user named and writes into the folder out.
func runFiles[P any, E event.Body](ctx context.Context, s Spec[P, E], c *cli.Context, in []string, out string) error {
	printing := out == "" && s.OneShot != nil && s.OneShot.Print != nil
	if out == "" && !printing {
		return command.Usagef("--in needs --out DIR")
	}
	if s.Files == nil {
		return command.Usagef("stage %s cannot work on files alone: use --run RUN", s.Name)
	}
	var section []byte
	var err error
	if c.IsSet("preset") {
		if section, err = definition.PresetSection(c.String("preset"), s.Name); err != nil {
			return command.UsageError(err)
		}
	}
	params, err := resolve(s, section, s.overlayOf(c))
	if err != nil {
		return command.UsageError(err)
	}
	if err := s.checkHost(c, params); err != nil {
		return err
	}
	if printing {
		if err := unused(c, "without --out", "force", "deadline"); err != nil {
			return err
		}
		c.Context = ctx
		return s.OneShot.Print(c, in, params, hostOf(c))
	}
	progress := newProgressLine(c, s.Name)
	defer progress.end()
	log, err := logger(c, progress)
	if err != nil {
		return err
	}
	datasets := datasetsOf(c)
	for i, dataset := range datasets {
		folder := out
		if len(datasets) > 1 {
			folder = filepath.Join(out, foldersOf(datasets)[i])
		}
		files := &Files{Context: ctx, In: in, Dataset: dataset}
		if files.folder, err = artifact.OpenFolder(folder); err != nil {
			return err
		}
		p := &performer[P, E]{
			spec: s, fs: vfs.OS, space: files.folder, folder: files.folder,
			records: filepath.Join(files.folder.Dir(), record.OneShot),
			host:    hostOf(c), log: log, deadline: c.Duration("deadline"), grace: hangGrace, report: progress.reporter(log),
		}
		if err := p.files(c, files, params, progress); err != nil {
			return err
		}
	}
	return nil
}

// files does the jobs of files that the user named.
func (p *performer[P, E]) files(c *cli.Context, files *Files, params P, progress *progressLine) error {
	events, err := p.spec.Files(files)
	if err != nil && files.Err() != nil {
		return context.Cause(files)
	}
	if err != nil {
		return err
	}
	for _, group := range groups(p.spec, events) {
		res, err := p.performWhenFree(files, task[P, E]{run: "local", params: params, in: group, force: c.Bool("force")})
		if err != nil {
			return err
		}
		progress.end()
		if err := printResult(c, p.spec.Results, res, p.folder.Dir()); err != nil {
			return err
		}
	}
	return nil
}

// datasetsOf are the datasets that --dataset names, or one that is empty.
func datasetsOf(c *cli.Context) []string {
	var all []string
	for _, path := range c.StringSlice("dataset") {
		if !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	if len(all) == 0 {
		return []string{""}
	}
	return all
}

// foldersOf names a folder for the results on each dataset: the last part of its manifest's folder in which all differ,
// such as books of books/manifest.json, or the number of a dataset where they have the same folder.
func foldersOf(manifests []string) []string {
	names := make([]string, len(manifests))
	dirs := make([]string, len(manifests))
	for i, m := range manifests {
		if absolute, err := filepath.Abs(m); err == nil {
			m = absolute
		}
		dirs[i] = filepath.Dir(m)
	}
	for deeper := true; deeper; {
		deeper = false
		different := map[string]bool{}
		for i, dir := range dirs {
			names[i], dirs[i] = filepath.Base(dir), filepath.Dir(dir)
			different[names[i]] = true
			deeper = deeper || dirs[i] != dir
		}
		if len(different) == len(names) {
			return names
		}
	}
	for i := range names {
		names[i] = strconv.Itoa(i + 1)
	}
	return names
}

// groups splits events into the inputs of jobs.
func groups[P any, E event.Body](s Spec[P, E], in []E) [][]E {
	if s.Gather != nil {
		return [][]E{in}
	}
	var each [][]E
	for _, e := range in {
		each = append(each, []E{e})
	}
	return each
}
