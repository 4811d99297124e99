package param

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Flags returns a command-line flag for every parameter of params.
func Flags(params any) []cli.Flag {
	const category = "Parameters (also keys of the stage's section in a pipeline file)"
	var flags []cli.Flag
	for _, f := range Fields(params) {
		usage, text := fmt.Sprintf("%s (%s)", f.Usage, f.Type), strings.ReplaceAll(Text(f.Default), "\n", `\n`)
		if isList(f.Type) { // it may be given more than once
			flags = append(flags, &cli.StringSliceFlag{Name: f.Flag(), Usage: usage, DefaultText: text, Category: category})
		} else {
			flags = append(flags, &cli.StringFlag{Name: f.Flag(), Usage: usage, DefaultText: text, Category: category})
		}
	}
	return flags
}

// Spread lets parameters that are true or false be given as flags without a value: --alibi becomes --alibi=true and
// --no-alibi becomes --alibi=false. --alibi false and --alibi=false stay what they are.
func Spread(args []string, params any) []string {
	short := map[string]string{}
	for _, f := range Fields(params) {
		if _, ok := f.Default.(bool); ok {
			short["--"+f.Flag()] = "--" + f.Flag() + "=true"
			short["--no-"+f.Flag()] = "--" + f.Flag() + "=false"
		}
	}
	out := slices.Clone(args)
	for i, a := range args {
		valued := i+1 < len(args) && (args[i+1] == "true" || args[i+1] == "false")
		if long, ok := short[a]; ok && !valued {
			out[i] = long
		}
	}
	return out
}

// Apply overlays the flags that were given onto params, a pointer to a struct.
func Apply(c *cli.Context, params any) error {
	for _, f := range Fields(params) {
		if !c.IsSet(f.Flag()) {
			continue
		}
		text := c.String(f.Flag())
		if isList(f.Type) {
			text = join(c.StringSlice(f.Flag()))
		}
		if err := Set(params, f.Key, text); err != nil {
			return fmt.Errorf("--%s: %w", f.Flag(), err)
		}
	}
	return nil
}

// Text is a parameter's value, or that of one as package json decodes it, as a flag takes it.
func Text(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case []string:
		if len(v) == 0 {
			return "none"
		}
		return strings.Join(v, ",")
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = Text(item)
		}
		return Text(items)
	case []int:
		if len(v) == 0 {
			return "none"
		}
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(v), " ", ","), "[]")
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	}
}
