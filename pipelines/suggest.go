package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/param"
	"bitnet1/shared/pipeline"
)

// suggestSet adds to the error about an unknown flag of `pipeline run` that a stage's parameter is given with --set.
func suggestSet(c *cli.Context, err error, args []string) error {
	name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	i := slices.IndexFunc(args, isPipelineFile)
	if !ok || i < 0 {
		return err
	}
	file, problem := pipeline.Load(args[i])
	if problem != nil {
		return err
	}
	key := strings.ReplaceAll(strings.TrimLeft(name, "-"), "-", "_")
	var given, near []string
	for _, stage := range file.Stages() {
		s, problem := describe(context.Background(), c, file, stage)
		if problem != nil {
			return err
		}
		keys := make([]string, len(s.Parameters))
		for i, f := range s.Parameters {
			keys[i] = f.Key
		}
		if slices.Contains(keys, key) {
			given = append(given, fmt.Sprintf("--set %s.%s=%s", stage, key, valueOf(name, args)))
		} else if k, ok := param.Nearest(key, keys); ok {
			near = append(near, fmt.Sprintf("--set %s.%s=%s", stage, k, valueOf(name, args)))
		}
	}
	if len(given) == 0 {
		given = near
	}
	if len(given) == 0 {
		return fmt.Errorf("%w: --help lists the flags, and parameters of a stage are given as --set STAGE.KEY=VALUE", err)
	}
	return fmt.Errorf("%w: parameters of a stage are given as %s", err, strings.Join(given, " or "))
}

// valueOf is what is given to the flag in args.
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
