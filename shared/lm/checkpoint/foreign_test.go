package checkpoint

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
)

// saveForeign writes the parameters as another program would, with these metadata.
func saveForeign(t *testing.T, m Model, metadata map[string]string) string {
	t.Helper()
	tensors, err := stateDict(m)
	if err != nil {
		t.Fatal(err)
	}
	return save(t, func(b *bytes.Buffer) error { return safetensors.Write(b, metadata, tensors) })
}

// A file that does not say what it is is read once the description that the error proposes is saved, here with the
// right number of bits.
func TestDescriptionBesideAFile(t *testing.T) {
	m := small()
	path := saveForeign(t, m, map[string]string{"format": "pt"})
	_, err := read(path)
	if err == nil {
		t.Fatal("a file without a description was read")
	}
	_, proposal, ok := strings.Cut(err.Error(), "codebook_bits and hadamard): ")
	if !ok || !strings.Contains(err.Error(), DescriptionPath(path)) {
		t.Fatalf("error %v", err)
	}
	proposal = strings.Replace(strings.Replace(proposal, `"stream_bits":1`, `"stream_bits":4`, 1), `"seq":2048`,
		`"seq":20`, 1)
	if err := os.WriteFile(DescriptionPath(path), []byte(proposal), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Config, m.Config) || !reflect.DeepEqual(got.Parameters, m.Parameters) ||
		got.Gamma != 0.1 || got.Mix != 1 {
		t.Errorf("read %+v, %+v", got.Config, got.Provenance)
	}
}

// The parameters of a v76 are those of a v77, if that is what their description says.
func TestV76DescribedAsV77(t *testing.T) {
	m := small()
	want := m.Config.V77()
	config, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(saveForeign(t, m, map[string]string{"config": string(config), "gamma": "0.25"}))
	if err != nil || !reflect.DeepEqual(got.Config, want) || !reflect.DeepEqual(got.Parameters, m.Parameters) {
		t.Errorf("read %+v, %v", got.Config, err)
	}
}

func TestDescriptionInMetadata(t *testing.T) {
	m := small()
	config, err := json.Marshal(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(saveForeign(t, m, map[string]string{"format": "pt", "config": string(config), "gamma": "0.25",
		"tokenizer": "bytes", "step": "9", "documents": "separate", "end_of_text": "60"}))
	if err != nil {
		t.Fatal(err)
	}
	if got.Documents != (model.Documents{Separate: true, EndOfText: 60}) || got.Gamma != 0.25 ||
		got.Tokenizer != "bytes" || got.Step != 9 || !reflect.DeepEqual(got.Config, m.Config) {
		t.Errorf("read %+v, %+v", got.Config, got.Provenance)
	}
}

func TestRefusesWrongDescriptions(t *testing.T) {
	m := small()
	config, err := json.Marshal(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	good := string(config)
	for text, want := range map[string]string{
		`{"config":` + good + `}`:                                                     "RWSP needs gamma",
		`{"config":` + good + `,"gamma":2}`:                                           "gamma",
		`{"config":` + good + `,"gamma":0.5,"lr":1}`:                                  "lr",
		`{"config":` + good + `,"gamma":0.5,"step":-1}`:                               "step",
		`{"gamma":0.5}`:                                                               "configuration",
		`{"config":` + good + `,"gamma":0.5,"documents":"separate"}`:                  "end_of_text",
		`{"config":{"d":32},"gamma":0.5}`:                                             "missing",
		`{"config":` + strings.Replace(good, `"ff":64`, `"ff":63`, 1) + `,"gamma":1}`: "blocks.0.up.weight",
		`{"config":` + good + `,"gamma":0.5} {}`:                                      "follows",
		`[]`:                                                                          "description",
	} {
		path := saveForeign(t, m, nil)
		if err := os.WriteFile(DescriptionPath(path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := read(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s…: error %v, want %q in it", text, err, want)
		}
	}
}
