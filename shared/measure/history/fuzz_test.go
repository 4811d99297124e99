package history

import (
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/run/artifact"
)

// FuzzProbe reads any bytes as a report of the stage probe, and makes the maps that pages show of it.
func FuzzProbe(f *testing.F) {
	f.Add([]byte(`{"ipmr": 0.5, "heads": [{"layer": 1, "head": 2, "ipmr": 0.1, "distances": [1, "x", 3]}]}`))
	f.Add([]byte(`{"heads": [{"layer": 1e300, "head": -1, "ipmr": 1}, {"layer": 4095, "head": 4095, "ipmr": 1}]}`))
	f.Add([]byte(`[]`))
	store, err := artifact.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ref, err := artifact.Put(store, "health", "application/json", "step-000001_pointer_health.json", text)
		if err != nil {
			t.Fatal(err)
		}
		alloctest.AtMost(t, 48<<20+256*int64(len(text)), func() {
			p := Probe{Measures: map[string]float64{}}
			if p.add(store, report{Ref: ref, key: "health"}) != nil {
				return
			}
			_ = p.Map("ipmr")
		})
	})
}
