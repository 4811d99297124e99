// Package param turns a struct of parameters into everything people meet it as: keys of a pipeline file, command-line
// flags, a row in the reference, and the canonical bytes that a job's key is made of. The struct is the only place
// where a parameter is named, typed, explained and given its default.
//
// A field looks like
//
//	Steps int `json:"steps" usage:"optimizer steps"`
//
// and is the key steps in a file and the flag --steps (underscores become dashes). Field types are bool, int, int64,
// uint64, float64, string, []int and []string. With the tag digest:"-" a field is no part of the canonical bytes: it
// says how far or how a job goes on, and changes nothing that the job makes. With the tag digest:"unless=VALUE" a field
// is left out where it has that value: a parameter that came later, and at VALUE changes nothing, leaves earlier bytes
// as they were. With the tag seed:"own" a seed is not the pipeline's. With the tag source:"same" a parameter cannot
// differ between the sources of a run.
//
// A usage that lists what another package declares is no tag: see Explainer.
package param

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
)

// Field describes one parameter of a struct.
type Field struct {
	Key     string `json:"key"`
	Type    string `json:"type"`    // "integer", "number", "text", "true or false", "list of integers", "list of texts"
	Default any    `json:"default"` // value in the struct that was described
	Usage   string `json:"usage"`
	index   int
	passing bool // no part of what is made
	neutral bool // came later, and has the value at which it changes nothing

	// Own is for a seed that the seed of a pipeline does not replace.
	Own bool `json:"own,omitempty"`

	// Same is for a parameter, of a stage that reads sources, that is the same for all sources of a run.
	Same bool `json:"same,omitempty"`
}

// Explainer is a struct of parameters that writes the usage of some of them itself, such as a list of values that
// another package declares.
type Explainer interface {
	// Usage returns the usage of the parameter key, whose field has no usage tag.
	Usage(key string) string
}

// Flag is the command-line form of the key.
func (f Field) Flag() string { return strings.ReplaceAll(f.Key, "_", "-") }

// Fields describes the parameters of params, which is a struct or a pointer to one, with its current values as
// defaults.
func Fields(params any) []Field {
	v := reflect.Indirect(reflect.ValueOf(params))
	if !v.IsValid() || v.Kind() != reflect.Struct {
		return nil
	}
	explainer, explains := v.Interface().(Explainer)
	var fields []Field
	for i := range v.NumField() {
		t := v.Type().Field(i)
		key, _, _ := strings.Cut(t.Tag.Get("json"), ",")
		if key == "" || key == "-" {
			continue
		}
		unless, later := strings.CutPrefix(t.Tag.Get("digest"), "unless=")
		fields = append(fields, Field{
			Key: key, Type: typeName(t.Type), Default: v.Field(i).Interface(), Usage: t.Tag.Get("usage"), index: i,
			passing: t.Tag.Get("digest") == "-", neutral: later && Text(v.Field(i).Interface()) == unless,
			Own:  t.Tag.Get("seed") == "own",
			Same: t.Tag.Get("source") == "same",
		})
		if f := &fields[len(fields)-1]; explains && f.Usage == "" {
			f.Usage = explainer.Usage(key)
		}
	}
	return fields
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return "list of texts"
		}
		return "list of integers"
	default:
		return "text"
	}
}

// Decode overlays the JSON object section onto params, a pointer to a struct. Unknown keys and wrong types are errors
// that name the key, what it takes and the nearest key there is. An empty section changes nothing.
func Decode(section []byte, params any) error {
	if len(bytes.TrimSpace(section)) == 0 || string(section) == "null" {
		return nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(section, &values); err != nil {
		return fmt.Errorf("parameters must be a mapping of keys to values: %w", err)
	}
	fields := Fields(params)
	var problems []error
	for _, key := range sortedKeys(values) {
		f, ok := find(fields, key)
		if !ok {
			problems = append(problems, UnknownKey(key, keys(fields)))
			continue
		}
		// A value of its own: decoding into a list would write into the one that the defaults hold.
		field := reflect.ValueOf(params).Elem().Field(f.index)
		value := reflect.New(field.Type())
		if hasNull(values[key]) || json.Unmarshal(values[key], value.Interface()) != nil {
			problems = append(problems, WrongType(key, values[key], f.Type))
			continue
		}
		field.Set(value.Elem())
	}
	return errors.Join(problems...)
}

// Set parses text as the value of one parameter, as a flag gives it: see Value.
func Set(params any, key, text string) error {
	f, ok := find(Fields(params), key)
	if !ok {
		return UnknownKey(key, keys(Fields(params)))
	}
	section, err := json.Marshal(map[string]json.RawMessage{key: Value(f.Type, text)})
	if err != nil {
		return err
	}
	return Decode(section, params)
}

// Conforms reports whether the JSON value is of the type that a Field names.
func Conforms(typ string, value []byte) bool {
	if hasNull(value) {
		return false
	}
	targets := map[string]any{
		"true or false": new(bool), "number": new(float64), "text": new(string),
		"list of integers": new([]int), "list of texts": new([]string),
	}
	if typ == "integer" {
		return json.Unmarshal(value, new(int64)) == nil || json.Unmarshal(value, new(uint64)) == nil
	}
	target, known := targets[typ]
	return known && json.Unmarshal(value, target) == nil
}

// hasNull reports whether a JSON value is null or a list with null in it, which package json takes for any type and
// leaves at zero.
func hasNull(value []byte) bool {
	var items []json.RawMessage
	if json.Unmarshal(value, &items) != nil {
		return false
	}
	return items == nil || slices.ContainsFunc(items, func(item json.RawMessage) bool { return string(item) == "null" })
}

// WrongType is the error for a value that does not conform.
func WrongType(key string, value []byte, typ string) error {
	if len(value) > 100 {
		value = append(value[:100:100], " …"...)
	}
	if beyond(typ, value) {
		return fmt.Errorf("%s: %s is %s out of range", key, value, article(typ))
	}
	return fmt.Errorf("%s: %s is not %s", key, value, article(typ))
}

// beyond reports whether a value that does not conform is of the type for all that: too large, too small or negative.
func beyond(typ string, value []byte) bool {
	x, _, err := big.ParseFloat(string(value), 10, 64, big.ToNearestEven)
	return err == nil && (typ == "integer" && x.IsInt() || typ == "number")
}

// Canonical returns the bytes that stand for params in a digest: a JSON object of every parameter that is part of it,
// in the order of the struct.
func Canonical(params any) ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for _, f := range Fields(params) {
		if f.passing || f.neutral {
			continue
		}
		value, err := json.Marshal(f.Default)
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", f.Key, err)
		}
		if string(value) == "null" { // a nil list is an empty one
			value = []byte("[]")
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%q:%s", f.Key, value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// Unkeyed returns those of params that are no part of the canonical bytes and differ from base, two structs of one
// type, as a JSON object; "" where there are none.
func Unkeyed(base, params any) (string, error) {
	differing := map[string]any{}
	before := Fields(base)
	for i, f := range Fields(params) {
		if f.passing && Text(before[i].Default) != Text(f.Default) {
			differing[f.Key] = f.Default
		}
	}
	if len(differing) == 0 {
		return "", nil
	}
	b, err := json.Marshal(differing)
	return string(b), err
}

// Overrides tells what of params differs from base, two structs of one type: keys to values as flags take them.
// Parameters that change nothing of what is made are left out.
func Overrides(base, params any) map[string]string {
	differing := map[string]string{}
	before := Fields(base)
	for i, f := range Fields(params) {
		if was, is := Text(before[i].Default), Text(f.Default); was != is && !f.passing {
			differing[f.Key] = is
		}
	}
	return differing
}

func find(fields []Field, key string) (Field, bool) {
	for _, f := range fields {
		if f.Key == key {
			return f, true
		}
	}
	return Field{}, false
}

func keys(fields []Field) []string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = f.Key
	}
	return all
}

func article(typ string) string {
	switch typ {
	case "integer":
		return "an integer"
	case "true or false", "text":
		return typ
	default:
		return "a " + typ
	}
}
