package definition

import (
	"strings"
	"testing"
)

func TestPresetsThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"seed: 3\nstages: {}\n": `unknown key "seed"`, "stages: {train: [1]}\n": "wrong.yml:1: stage train: give a mapping",
		"":                                "is empty",
		"stages: {train: {a: 1, a: 2}}\n": "given twice", "about: [x]\nstages: {}\n": "about: give one sentence",
	} {
		if _, err := ReadPreset("wrong.yml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

// Every preset of the project can be read, and speaks to stages.
func TestPresetsOfTheProject(t *testing.T) {
	for _, name := range Presets() {
		if p, err := OpenPreset(name); err != nil || len(p["train"]) == 0 {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	section, err := PresetSection("nano", "tokenize")
	if err != nil || string(section) != `{"tokenizer":"bytes"}` {
		t.Errorf("%s, %v", section, err)
	}
	if section, err := PresetSection("nano", "pack"); err != nil || section != nil {
		t.Errorf("nothing is said of pack: %s, %v", section, err)
	}
	_, err = PresetSection("nono", "train")
	if err == nil || !strings.Contains(err.Error(), "there are 300M, 75M, nano") {
		t.Error(err)
	}
}
