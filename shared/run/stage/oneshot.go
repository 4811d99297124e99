package stage

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

func runCommand[P any, E event.Body](s Spec[P, E]) *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "one shot: from files to a folder, or over an old run",
		Description: "Either\n   " + s.Name + " run --in FILE … --out DIR\nor, over the " + s.kind() + " events of a run that is in the data directory,\n   " + s.Name + " run --run RUN\nNeither needs an event server; with NATS_URL set the second form announces what it made.\n\nExample:\n   " + s.Example,
		Flags:       s.runFlags(),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			ctx, stop := signalContext(c.Context)
			defer stop()
			switch {
			case len(c.StringSlice("in")) > 0 && c.IsSet("run"):
				return command.Usagef("--in and --run exclude each other")
			case len(c.StringSlice("in")) > 0:
				if err := unused(c, "with --in", append(s.Choice.flags(), "data")...); err != nil {
					return err
				}
				return runFiles(ctx, s, c)
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

// runFlags are those of the one-shot form. Which of them one of its two forms leaves unused, it refuses.
func (s Spec[P, E]) runFlags() []cli.Flag {
	more := []cli.Flag{
		&cli.StringSliceFlag{Name: "in", Usage: "input `FILE`s"},
		&cli.StringFlag{Name: "out", Usage: "output `DIR`ectory, with --in"},
		&cli.BoolFlag{Name: "force", Usage: "begin anew, whatever is recorded or was left unfinished"},
	}
	if s.OnDataset != nil {
		more = append(more, &cli.StringFlag{Name: "dataset", Usage: "`MANIFEST` of the dataset: the one that goes with --in, or another than the run's with --run"})
	}
	if s.Choice != nil {
		more = append(more, s.Choice.flag())
	}
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

// presetFlag is the flag of a preset, for stages of which presets say something and which have no such parameter: there the
// parameter's flag is the preset's too.
func presetFlag[P any, E event.Body](s Spec[P, E]) []cli.Flag {
	for _, f := range param.Fields(s.Defaults) {
		if f.Key == "preset" {
			return nil
		}
	}
	for _, name := range definition.Presets() {
		if section, err := definition.PresetSection(name, s.Name); err == nil && section != nil {
			names := strings.Join(definition.Presets(), ", ")
			return []cli.Flag{&cli.StringFlag{Name: "preset", Usage: "with --in: what the preset of a pipeline says of this stage (" + names + ")"}}
		}
	}
	return nil
}

// runFiles works on files that the user named and writes into a folder.
func runFiles[P any, E event.Body](ctx context.Context, s Spec[P, E], c *cli.Context) error {
	if !c.IsSet("out") {
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
	params, err := resolve(s, section, overlayOf[P](c))
	if err != nil {
		return command.UsageError(err)
	}
	progress := newProgressLine(c, s.Name)
	defer progress.end()
	log, err := logger(c, progress)
	if err != nil {
		return err
	}
	folder, err := artifact.OpenFolder(c.String("out"))
	if err != nil {
		return err
	}
	files := &Files{Context: ctx, In: c.StringSlice("in"), Dataset: c.String("dataset"), folder: folder}
	in, err := s.Files(files)
	if err != nil {
		return err
	}
	p := &performer[P, E]{
		spec: s, space: folder, folder: folder, records: filepath.Join(folder.Dir(), ".jobs"),
		host: hostOf(c), log: log, deadline: c.Duration("deadline"), grace: hangGrace, report: progress.reporter(log),
	}
	for _, group := range groups(s, in) {
		res, err := p.performWhenFree(ctx, task[P, E]{run: "local", params: params, in: group, force: c.Bool("force")})
		if err != nil {
			return err
		}
		progress.end()
		if err := printResult(c, s.Results, res, folder.Dir()); err != nil {
			return err
		}
	}
	return nil
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

// runOver answers the events of an old run again, or for the first time.
func runOver[P any, E event.Body](ctx context.Context, s Spec[P, E], c *cli.Context) error {
	progress := newProgressLine(c, s.Name)
	defer progress.end()
	log, err := logger(c, progress)
	if err != nil {
		return err
	}
	store, err := artifact.Open(c.String("data"))
	if err != nil {
		return err
	}
	j := journal.Open(store.Dir()).Telling(func(err error) { log.Warn(err.Error()) })
	run := c.String("run")
	jobs, err := jobsOver(log, s, store, j, run, s.Choice.given(c))
	if err != nil {
		return err
	}
	b, err := optionalBus(ctx, s.Name)
	if err != nil {
		return err
	}
	if b != nil {
		defer b.Close()
	}
	def, err := definition.OfRun(j, store, run)
	if err != nil {
		return err
	}
	params, err := resolve(s, sectionOf(def, s.Name), overlayOf[P](c))
	if err != nil {
		return err
	}
	space, redirect, err := otherDataset(s, c, store)
	if err != nil {
		return err
	}
	p := &performer[P, E]{
		spec: s, space: space, journal: j, records: record.Root(store), announcer: bus.NewAnnouncer(j, b),
		host: hostOf(c), log: log, deadline: c.Duration("deadline"), grace: hangGrace, report: progress.reporter(log),
	}
	if err := results.Declare(j, run, s.declaration()); err != nil {
		return err
	}
	for _, in := range jobs {
		t := task[P, E]{run: run, params: params, force: c.Bool("force"), renew: true}
		if err := t.answer(s, def, in); err != nil {
			return err
		}
		redirect(&t)
		res, err := p.performWhenFree(ctx, t)
		if err != nil {
			return err
		}
		progress.end()
		if err := printResult(c, s.Results, res, p.outputs(t)); err != nil {
			return err
		}
	}
	return nil
}

// otherDataset returns where a rerun over a run finds its artifacts, and what makes its tasks be about the dataset that
// --dataset names. A result on another dataset than the run's own stands beside the run's results, as one of other
// parameters does.
func otherDataset[P any, E event.Body](s Spec[P, E], c *cli.Context, store *artifact.Store) (artifact.Space, func(*task[P, E]), error) {
	if s.OnDataset == nil || c.String("dataset") == "" {
		return store, func(*task[P, E]) {}, nil
	}
	files := &Files{Dataset: c.String("dataset"), folder: artifact.NewInputs()}
	manifest, err := files.AddDataset()
	if err != nil {
		return nil, nil, err
	}
	return artifact.Beside{Store: store, Files: files.folder}, func(t *task[P, E]) {
		for i, in := range t.in {
			other := s.OnDataset(in, manifest)
			if !slices.Equal(in.Inputs(), other.Inputs()) {
				t.overrides[s.Name+".dataset"] = digest.Short(manifest.Digest)
			}
			t.in[i] = other
		}
	}, nil
}

// jobsOver are the events of a run that a rerun is about, split into the inputs of jobs. Which is what the user has given to
// the flag of the stage's Choice.
func jobsOver[P any, E event.Body](
	log *slog.Logger, s Spec[P, E], store *artifact.Store, j journal.Journal, run, which string,
) (jobs [][]event.Envelope, err error) {
	events, own, err := eventsOver[E](log, j, run, s.kind())
	if err != nil {
		return nil, err
	}
	if s.Choice == nil {
		events = own
	} else if events, err = s.Choice.choose(events, own, run, which); err == nil {
		events, err = s.Choice.there(log, store, run, events)
	}
	if err != nil {
		return nil, err
	}
	if count := latest(events).Part.Count; s.Gather != nil && count > 0 {
		set, ready := gathered[E](events, count)
		if !ready {
			return nil, fmt.Errorf("run %s: some of the %d %s events are missing: let the pipeline finish first", run, count, s.kind())
		}
		return [][]event.Envelope{set}, nil
	}
	for _, e := range events {
		jobs = append(jobs, []event.Envelope{e})
	}
	return jobs, nil
}

// latest is the event that was announced last, of one or more.
func latest(events []event.Envelope) event.Envelope {
	return slices.MaxFunc(events, func(a, b event.Envelope) int { return cmp.Compare(a.Time, b.Time) })
}

// eventsOver reads the events of a kind that a run has, one at least, and those among them that the run's own parameters
// gave. Where there is none of the latter, all are the run's own.
func eventsOver[E event.Body](log *slog.Logger, j journal.Journal, run, kind string) (events, own []event.Envelope, err error) {
	if events, err = j.Read(run, kind); err != nil {
		return nil, nil, err
	}
	events = slices.DeleteFunc(events, func(e event.Envelope) bool {
		_, err := event.Into[E](e)
		if err != nil {
			log.Warn("an event is left out", "error", err)
		}
		return err != nil
	})
	if len(events) == 0 {
		return nil, nil, noEvents(j, run, kind)
	}
	own = slices.DeleteFunc(slices.Clone(events), func(e event.Envelope) bool { return len(e.Overrides) > 0 })
	if len(own) == 0 {
		own = events
	}
	return events, own, nil
}

func noEvents(j journal.Journal, run, kind string) error {
	runs, err := j.Runs()
	if err != nil {
		return err
	}
	if slices.Contains(runs, run) {
		return fmt.Errorf("run %s has no %s event yet", run, kind)
	}
	return command.NoSuchRun(run, runs)
}

// optionalBus connects when NATS_URL is set.
func optionalBus(ctx context.Context, name string) (*bus.Bus, error) {
	a := bus.AddressFrom(os.Getenv)
	if a.URL == "" {
		return nil, nil
	}
	return bus.Connect(ctx, a, name)
}

// printResult says which artifacts a job made and where they are.
func printResult(c *cli.Context, declared []results.Result, res result, dir string) error {
	for _, out := range res.outputs {
		if c.Bool("json") {
			body, err := event.Plain(out.Body)
			if err != nil {
				return err
			}
			line, err := json.Marshal(map[string]any{"kind": out.Kind, "job": res.key, "recorded": res.cached, "body": body})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, string(line))
			continue
		}
		note := ""
		if res.cached {
			note = " (made before; --force makes it again)"
		}
		lines := outputLines(declared, out, dir)
		fmt.Fprintf(c.App.Writer, "%s%s\n", lines[0], note)
		for _, line := range lines[1:] {
			fmt.Fprintln(c.App.Writer, "  "+line)
		}
	}
	return nil
}

// outputLines say what an output is: its headline or its kind, its values where it is no row of a table, and its files.
func outputLines(declared []results.Result, out record.Output, dir string) []string {
	lines := []string{out.Kind}
	i := slices.IndexFunc(declared, func(r results.Result) bool { return r.Kind == out.Kind })
	if body, err := results.Body(out.Body); i >= 0 && err == nil {
		if headline := declared[i].Headline; headline != "" {
			lines[0] = results.Template(headline).Text(body)
		}
		if declared[i].Row == nil {
			lines = append(lines, declared[i].Lines(body)...)
		}
	}
	var names []string
	for _, ref := range record.Mentioned(out.Body) {
		path := filepath.Join(dir, ref.Name)
		if _, err := os.Stat(path); err == nil {
			names = append(names, path)
		}
	}
	slices.Sort(names)
	return append(lines, names...)
}
