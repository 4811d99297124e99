package definition

import (
	"encoding/json"
	"testing"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/alloctest"
)

// FuzzSections reads any bytes as the YAML of a preset. What is read is JSON, and each key has a place.
func FuzzSections(f *testing.F) {
	f.Add([]byte("stages:\n  train: {steps: 3, kshift_layers: [0, 1], x: !!binary aGk=}\n  shard:\n"))
	f.Add([]byte("stages: {a: {b: [[[[[[[[[[[[[]]]]]]]]]]]]]}, a: {}}"))
	f.Add([]byte("a: &a [x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nstages: {s: {x: [*c, *c]}}\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		alloctest.AtMost(t, 1<<20+4096*int64(len(content)), func() {
			r := &Reader{Path: "preset.yml"}
			r.Read(content, []string{"stages"}, func(_, value *yaml.Node) {
				_, sections := r.Stages(value)
				if r.Err() != nil {
					return
				}
				for stage, section := range sections {
					if encoded, err := section.Encode(); err != nil || !json.Valid(encoded) {
						t.Errorf("stage %s: %s, %v", stage, encoded, err)
					}
				}
			})
		})
	})
}
