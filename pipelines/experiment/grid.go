package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bitnet1/shared/run/param"
)

// axis is one parameter of a grid and the values it takes.
type axis struct {
	key    string // stage.key, as --set takes it
	values []string
}

// parseAxis reads "train.alibi=true,false", a list as everywhere: in brackets or without. Brackets inside of it hold a
// value that is a list itself: "train.kshift_layers=[0],[0,2],none".
func parseAxis(text string) (axis, error) {
	key, list, ok := strings.Cut(text, "=")
	if _, _, dotted := strings.Cut(key, "."); !ok || !dotted {
		return axis{}, fmt.Errorf("--grid %s: write stage.key=value,value, e.g. train.alibi=true,false", text)
	}
	if strings.Count(list, "[") != strings.Count(list, "]") {
		return axis{}, fmt.Errorf("--grid %s: brackets do not match", text)
	}
	if inner, ok := param.InBrackets(list); ok {
		list = inner
	}
	a := axis{key: key, values: param.Split(list)}
	for i, value := range a.values {
		if inner, ok := param.InBrackets(value); ok {
			a.values[i] = cmp.Or(inner, "none")
		}
		if value == "" {
			return axis{}, fmt.Errorf("--grid %s: a value is empty (the empty list is none)", text)
		}
		if slices.Contains(a.values[:i], a.values[i]) {
			return axis{}, fmt.Errorf("--grid %s: %s stands there twice", text, a.values[i])
		}
	}
	return a, nil
}

// seedKey is the key of the axis of seeds, which is no parameter of a stage: the seed is the whole run's.
const seedKey = "seed"

// parseSeeds reads "1,2,3".
func parseSeeds(text string) (axis, error) {
	a := axis{key: seedKey, values: param.Split(text)}
	for i, value := range a.values {
		seed, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return axis{}, fmt.Errorf("--seeds %s: %q is no whole number: write --seeds 1,2,3", text, value)
		}
		a.values[i] = strconv.FormatUint(seed, 10) // the launcher takes 010 for 8
		if slices.Contains(a.values[:i], a.values[i]) {
			return axis{}, fmt.Errorf("--seeds %s: %s stands there twice", text, a.values[i])
		}
	}
	return a, nil
}

// name is the parameter's name without its stage.
func (a axis) name() string { return a.key[strings.Index(a.key, ".")+1:] }

// flag is what the launcher is given for a value.
func (a axis) flag(value string) []string {
	if a.key == seedKey {
		return []string{"--seed", value}
	}
	return []string{"--set", a.key + "=" + value}
}

// cells lists every combination of the axes' values; the last axis changes fastest.
func cells(axes []axis) [][]string {
	all := [][]string{nil}
	for _, a := range axes {
		var next [][]string
		for _, cell := range all {
			for _, v := range a.values {
				next = append(next, append(cell[:len(cell):len(cell)], v))
			}
		}
		all = next
	}
	return all
}
