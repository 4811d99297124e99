package results

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/run/event"
)

// FuzzDeclaration shows any body as any declaration of a stage says. Both may be a stranger's.
func FuzzDeclaration(f *testing.F) {
	declaration, err := json.Marshal(Declaration{Stage: "evaluate", Answers: "checkpoint.saved", Results: []Result{{
		Kind: "evaluation.written", Headline: "checkpoint {step}: {a.b:.3}[, {x:si} of {y:bytes}]",
		Columns: []Column{{Key: "bits", Name: "bits", Value: "{x:.1%}", Better: Lower, Error: "{e:.2}"}},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	body, err := event.Marshal(map[string]any{"step": 3, "x": 0.5, "y": -1, "e": nil, "a": map[string]any{"b": true}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(declaration, body)
	f.Add([]byte(`{"stage": "a", "results": [{"kind": "a.b", "headline": "[[{x:.99}", "row": {"key": "a"}}]}`), body)
	f.Add([]byte(`null`), []byte{0x80})
	path := filepath.Join(f.TempDir(), "evaluate.json")
	f.Fuzz(func(t *testing.T, declaration, body []byte) {
		if err := os.WriteFile(path, declaration, 0o644); err != nil {
			t.Fatal(err)
		}
		alloctest.AtMost(t, 1<<20+512*int64(len(declaration))*int64(1+len(body)), func() {
			d, ok := read(path)
			fields, err := Body(body)
			if !ok || err != nil {
				return
			}
			for _, r := range d.Results {
				_ = Template(r.Headline).Text(fields)
				_ = r.Lines(fields)
				for _, c := range withBaselines(r.Columns) {
					cell, _ := c.Cell(fields)
					_, _ = cell.Number(), c.Meaning()
				}
			}
		})
	})
}
