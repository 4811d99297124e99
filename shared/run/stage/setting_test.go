package stage

import (
	"testing"

	"bitnet1/shared/run/command"
)

func TestSettingIsInTheFormOfTheUser(t *testing.T) {
	t.Setenv(command.EnvLauncher, "")
	if got := Setting("tokenize", "on_bad_file", "skip"); got != "--on-bad-file skip" {
		t.Error(got)
	}
	t.Setenv(command.EnvLauncher, "1")
	if got := Setting("tokenize", "on_bad_file", "skip"); got != "--set tokenize.on_bad_file=skip" {
		t.Error(got)
	}
}
