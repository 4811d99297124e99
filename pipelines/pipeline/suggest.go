package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/pipelinefile"
	"bitnet1/shared/run/param"
)

// suggestSet explains the error about an unknown flag. If the flag is a parameter of a stage, the message says how to
// give it with --set. Otherwise it names the flag that may be meant.
func suggestSet(c *cli.Context, err error, args []string) error {
	name, ok := param.UndefinedFlag(err)
	unknown := param.FlagError(err, c.Command.Flags)
	i := slices.IndexFunc(args, isPipelineFile)
	if !ok || i < 0 {
		return unknown
	}
	file, problem := pipelinefile.Load(args[i])
	if problem != nil {
		return unknown
	}
	key := strings.ReplaceAll(name, "-", "_")
	settings := map[string][]string{} // by the key that may be meant
	var words []string                // that may be meant: the command's own flags, and those keys
	for _, f := range c.Command.Flags {
		words = append(words, f.Names()...)
	}
	for _, stage := range file.Stages() {
		s, problem := describe(context.Background(), c, file, stage)
		if problem != nil {
			return unknown
		}
		keys := make([]string, len(s.Parameters))
		for i, f := range s.Parameters {
			keys[i] = f.Key
		}
		if k, ok := param.Nearest(key, keys); ok {
			words = append(words, k)
			settings[k] = append(settings[k], fmt.Sprintf("--set %s.%s=%s", stage, k, valueOf(name, args)))
		}
	}
	meant, _ := param.Nearest(key, words)
	switch {
	case settings[meant] != nil:
		return fmt.Errorf("there is no flag --%s: parameters of a stage are given as %s", name,
			strings.Join(settings[meant], " or "))
	case meant == "":
		return fmt.Errorf("%w, and parameters of a stage are given as --set STAGE.KEY=VALUE", unknown)
	}
	return unknown
}

// valueOf is the value of the flag in args.
func valueOf(name string, args []string) string {
	for i, a := range args {
		flag, value, ok := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch {
		case flag != strings.TrimLeft(name, "-") || a == flag:
		case ok:
			return value
		case i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") && !isPipelineFile(args[i+1]):
			return args[i+1]
		default:
			return "true"
		}
	}
	return "VALUE"
}

func isPipelineFile(arg string) bool {
	return strings.HasSuffix(arg, ".yml") || strings.HasSuffix(arg, ".yaml")
}
