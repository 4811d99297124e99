package main

import (
	"fmt"
	"strings"
)

// axis is one parameter of a grid and the values it takes.
type axis struct {
	key    string // stage.key, as --set takes it
	values []string
}

// parseAxis reads "train.alibi=true,false". Commas inside brackets belong to a value, which is a list then:
// "train.kshift_layers=[0],[0,2],none".
func parseAxis(text string) (axis, error) {
	key, list, ok := strings.Cut(text, "=")
	if _, _, dotted := strings.Cut(key, "."); !ok || !dotted {
		return axis{}, fmt.Errorf("--grid %s: write stage.key=value,value, e.g. train.alibi=true,false", text)
	}
	a := axis{key: key}
	depth, from := 0, 0
	for i, r := range list + "," {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case r == ',' && depth == 0:
			value := strings.TrimSpace(list[from:i])
			value = strings.TrimSuffix(strings.TrimPrefix(value, "["), "]")
			if value == "" {
				return axis{}, fmt.Errorf("--grid %s: a value is empty (the empty list is none)", text)
			}
			a.values, from = append(a.values, value), i+1
		}
	}
	if depth != 0 {
		return axis{}, fmt.Errorf("--grid %s: brackets do not match", text)
	}
	return a, nil
}

// name is the parameter's name without its stage.
func (a axis) name() string {
	_, key, _ := strings.Cut(a.key, ".")
	return key
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
