package stage

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
)

func runApp[P any, E event.Body](s Spec[P, E], args []string) int {
	cli.HelpPrinter = command.PrintHelp
	app := &cli.App{
		Name: s.Name, Usage: s.About, HideVersion: true,
		Description: fmt.Sprintf("Answers %s events.\n\nExample:\n   %s", s.kind(), s.Example),
		Commands:    append([]*cli.Command{serveCommand(s), runCommand(s), describeCommand(s)}, s.Commands...),
		// Errors are printed once, below, and no library code may exit.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(c *cli.Context, err error, _ bool) error {
			return command.UsageError(s.unknownFlag(err, c.Command.Flags))
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return command.Usagef("unknown command %q: use %s", c.Args().First(), alternatives(c.App.Commands))
			}
			return command.Usagef("say how to run: %s serve, or %s run (--help has an example)", s.Name, s.Name)
		},
		DisableSliceFlagSeparator: true,
	}
	for _, c := range app.Commands {
		c.OnUsageError = app.OnUsageError
	}
	args = arrange(app, param.Spread(args, s.Defaults))
	app.Metadata = map[string]any{argumentsKey: args}
	return command.ExitStatus(s.Name, app.Run(args), os.Stderr)
}

// alternatives are the names of commands: "serve, run or describe".
func alternatives(commands []*cli.Command) string {
	var names []string
	for _, c := range commands {
		if c.Name != "help" { // which package cli adds
			names = append(names, c.Name)
		}
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// arrange lets --in take several files, as a shell's pattern gives them, where a command takes several.
func arrange(app *cli.App, args []string) []string {
	if len(args) < 2 || app.Command(args[1]) == nil {
		return args
	}
	flags := app.Command(args[1]).Flags
	many := slices.ContainsFunc(flags, func(f cli.Flag) bool {
		_, several := f.(*cli.StringSliceFlag)
		return several && slices.Contains(f.Names(), "in")
	})
	if !many {
		return args
	}
	return append(args[:2:2], command.Arrange(args[2:], flags, "in", nil)...)
}

// flags are those of both forms, the parameters and more.
func (s Spec[P, E]) flags(more ...cli.Flag) []cli.Flag {
	all := []cli.Flag{
		&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"},
			Usage: "data `DIR`ectory: artifacts, runs, events"},
		command.BucketFlag(),
		&cli.StringFlag{Name: "run", Usage: "id of the `RUN`"},
	}
	if s.Threads {
		all = append(all, command.ThreadsFlag("worker threads of compute kernels"))
	}
	if s.Device {
		all = append(all,
			&cli.StringFlag{Name: "device", Value: "auto", EnvVars: []string{"BITNET1_DEVICE"},
				Usage: "compute device: cpu, cuda, cuda:1 …, or auto: a GPU if this build and this machine have one"})
	}
	all = append(all, s.deviceFlags()...)
	all = append(all,
		&cli.DurationFlag{Name: "deadline", Usage: "longest time for one job (0: none)"},
		&cli.StringFlag{Name: "log-level", Value: "info", EnvVars: []string{"BITNET1_LOG_LEVEL"},
			Usage: "debug, info, warn or error"},
		&cli.BoolFlag{Name: "json", EnvVars: []string{"BITNET1_JSON"}, Usage: "log and print JSON lines"},
	)
	return append(append(all, more...), param.Flags(s.Defaults)...)
}

// deviceFlags is the flag of a stage that computes on several devices.
func (s Spec[P, E]) deviceFlags() []cli.Flag {
	if !s.Devices {
		return nil
	}
	return []cli.Flag{&cli.StringFlag{Name: "devices", EnvVars: []string{"BITNET1_DEVICES"},
		Usage: "several devices in place of --device, one rank on each: 0,1 … are GPUs, cpu,cpu shares the processor"}}
}

// checkHost refuses what is impossible on this host.
func (s Spec[P, E]) checkHost(c *cli.Context, p P) error {
	if given(c, "devices") && given(c, "device") {
		return command.Usagef("--device and --devices exclude each other")
	}
	if s.CheckHost == nil {
		return nil
	}
	return command.UsageError(s.CheckHost(p, hostOf(c)))
}

// unknownFlag explains the error about a flag that the command does not take: other stages have it, or it is misspelt.
func (s Spec[P, E]) unknownFlag(err error, taken []cli.Flag) error {
	why := map[string]string{
		"threads":    "the stage does not compute with threads",
		"device":     "the stage does not compute on a device",
		"devices":    "the stage does not compute on several devices",
		"dataset":    "the stage reads no dataset beside its input",
		"checkpoint": fmt.Sprintf("the stage answers %s events, not checkpoints", s.kind()),
	}
	name, _ := param.UndefinedFlag(err)
	if reason, ok := why[name]; ok {
		return fmt.Errorf("%s does not take --%s: %s", s.Name, name, reason)
	}
	return param.FlagError(err, taken)
}

// given reports whether a flag is on the command line; package cli does not tell it from one that the environment sets.
func given(c *cli.Context, name string) bool {
	args, _ := c.App.Metadata[argumentsKey].([]string)
	return slices.ContainsFunc(args, func(a string) bool {
		flag, _, _ := strings.Cut(a, "=")
		return flag == "--"+name || flag == "-"+name
	})
}

// argumentsKey is where the app has its arguments, arranged.
const argumentsKey = "arguments"

// overlayOf sets the parameters that the command line gives.
func (s Spec[P, E]) overlayOf(c *cli.Context) func(*P) error {
	return func(p *P) error {
		err := param.Apply(c, p)
		if err == nil && s.OneShot != nil && c.Command.Name == "run" {
			err = s.OneShot.Overlay(c, p)
		}
		return command.UsageError(err)
	}
}

func hostOf(c *cli.Context) Host {
	// A stage may heed a device that it takes no flag of.
	return Host{Threads: command.Threads(c), Device: cmp.Or(c.String("device"), "auto"), Devices: c.String("devices")}
}

func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return command.Usagef("unexpected argument %q: every input is given by a flag (--help lists them)", c.Args().First())
	}
	return nil
}
