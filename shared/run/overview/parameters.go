package overview

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/param"
)

// Parameters maps the keys of a run's definition to their values: STAGE.KEY, pipeline, preset, seed and sources.
func Parameters(j journal.Journal, store *artifact.Store, run string) (map[string]string, error) {
	d, err := definition.OfRun(j, store, run)
	if err != nil || d == nil {
		return map[string]string{}, err
	}
	seed := fmt.Sprint(d.Seed)
	given := map[string]string{"pipeline": d.Name, "preset": d.Preset, "seed": seed}
	var sources []string
	for _, s := range d.Sources {
		sources = append(sources, s.Name)
	}
	given["sources"] = strings.Join(sources, ",")
	for name, section := range d.Stages {
		var values map[string]any
		if err := json.Unmarshal(section, &values); err != nil {
			return nil, fmt.Errorf("definition of run %s: stage %s: %w", run, name, err)
		}
		for key, v := range values {
			if text := Text(v); key != "seed" || text != seed {
				given[name+"."+key] = text
			}
		}
	}
	return given, nil
}

// Text writes a parameter that was read from JSON as the value of a flag.
func Text(v any) string {
	list, ok := v.([]any)
	if !ok {
		return param.Text(v)
	}
	items := make([]string, len(list))
	for i, item := range list {
		items[i] = param.Text(item)
	}
	return param.Text(items)
}

// Differing lists the keys whose values are not the same in all runs, of which each has its Parameters.
func Differing(all []map[string]string) []string {
	keys := map[string]bool{}
	for _, given := range all {
		for key := range given {
			keys[key] = true
		}
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(keys)), func(key string) bool {
		return !slices.ContainsFunc(all, func(given map[string]string) bool { return given[key] != all[0][key] })
	})
}

// ShortKey removes the stage from a key, unless another stage has the same key.
func ShortKey(full string, all []string) string {
	_, key, dotted := strings.Cut(full, ".")
	same := 0
	for _, other := range all {
		if _, k, _ := strings.Cut(other, "."); k == key || other == key {
			same++
		}
	}
	if dotted && same == 1 {
		return key
	}
	return full
}
