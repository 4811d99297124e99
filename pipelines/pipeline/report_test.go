package main

import "testing"

// The command that is kept with a run has no secrets, and a shell takes it as it is.
func TestCommandLine(t *testing.T) {
	got := commandLine([]string{"run", "--source", "https://me:secret@host/a.parquet?X-Amz-Signature=secret",
		"--source=https://me:secret@host/b.parquet", "--set", "tokenize.filters=[score >= 3]", "it's.yml"})
	want := `pipeline run --source https://host/a.parquet --source=https://host/b.parquet ` +
		`--set 'tokenize.filters=[score >= 3]' 'it'\''s.yml'`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
