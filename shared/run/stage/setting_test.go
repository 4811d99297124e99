package stage

import "testing"

func TestSettingIsInTheFormOfTheUser(t *testing.T) {
	t.Setenv(EnvLauncher, "")
	if got := Setting("tokenize", "on_bad_file", "skip"); got != "--on-bad-file skip" {
		t.Error(got)
	}
	t.Setenv(EnvLauncher, "1")
	if got := Setting("tokenize", "on_bad_file", "skip"); got != "--set tokenize.on_bad_file=skip" {
		t.Error(got)
	}
}
