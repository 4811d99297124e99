package command

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Help fits into terminals of any width. It keeps its words, and examples stay on one line.
func TestHelpFitsTheTerminal(t *testing.T) {
	const long = "      probe run --in model/step-000600.safetensors --dataset dataset/manifest.json --out probe\n"
	page := "NAME:\n   probe - look at what the attention heads of a checkpoint look at, and whether the model copies\n" +
		"\nDESCRIPTION:\n   Example:\n" + long + "\nOPTIONS:\n" +
		"   --device value                   compute device: cpu, cuda, or auto: a GPU if this machine has one\n" +
		"   --metrics STAGE=ADDRESS [ --metrics STAGE=ADDRESS ]  serve Prometheus metrics of a stage\n"
	if fitHelp(page, 0) != page {
		t.Error("help changes where there is no terminal")
	}
	for _, width := range []int{60, 80, 100} {
		got := fitHelp(page, width)
		if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(page), " ") {
			t.Errorf("%d columns: other words:\n%s", width, got)
		}
		if !strings.Contains(got, long) {
			t.Errorf("%d columns: the example is broken:\n%s", width, got)
		}
		for line := range strings.Lines(got) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width && line != long {
				t.Errorf("%d columns: a line of %d: %s", width, n, line)
			}
		}
	}
}
