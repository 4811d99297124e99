package glob

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.jsonl", "a.jsonl", true},
		{"*.jsonl", "x/a.jsonl", false},
		{"**/*.jsonl", "a.jsonl", true},
		{"**/*.jsonl", "x/y/a.jsonl", true},
		{"x/**", "x/y/a.jsonl", true},
		{"x/**", "x", false},
		{"x/**/a", "x/a", true},
		{"x/**/**/a", "x/y/z/w/a", true},
		{"**/y/**/a", "x/y/z/a", true},
		{"**/y/**/a", "x/z/a", false},
		{"x/*/a", "x/y/z/a", false},
		{"x/[ab]?", "x/bq", true},
		{"x**/a", "xyz/a", true}, // as path.Match has it: ** is special as a whole name only
		{"x**/a", "xyz/b/a", false},
	} {
		if got, err := Match(c.pattern, c.name); err != nil || got != c.want {
			t.Errorf("%s and %s: %v, %v", c.pattern, c.name, got, err)
		}
	}
	for _, bad := range []string{"[", "x/[a", "**/["} {
		if _, err := Match(bad, "y"); err == nil {
			t.Errorf("%s is a pattern", bad)
		}
	}
}

func TestFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{
		"top.jsonl", "c/mid.jsonl", "c/d/deep.jsonl", "c/d/other.txt", "data[1].jsonl", "data1.jsonl",
		"runs[a]/x.jsonl", "runsa/y.jsonl",
		"c/caf\xe9.jsonl", "odd\xff/z.jsonl", ".hidden/h.jsonl", "star*/s.jsonl",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(".", "c/d/loop"); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string][]string{
		"data[1].jsonl":            {"data[1].jsonl"},
		"data[0-9].jsonl":          {"data1.jsonl"},
		`data\[1].jsonl`:           {"data[1].jsonl"},
		"runs[a]/*.jsonl":          {"runs[a]/x.jsonl"},
		"runs?/*.jsonl":            {"runsa/y.jsonl"},
		"star*/*.jsonl":            {"star*/s.jsonl"},
		"c/**/*.jsonl":             {"c/caf\xe9.jsonl", "c/d/deep.jsonl", "c/mid.jsonl"},
		"c/**/**/*.txt":            {"c/d/other.txt"},
		"./c/d/../*.jsonl":         {"./c/d/../caf\xe9.jsonl", "./c/d/../mid.jsonl"},
		"**/z.jsonl":               {"odd\xff/z.jsonl"},
		"c//mid.*":                 {"c//mid.jsonl"},
		here + "/top.*":            {here + "/top.jsonl"},
		"c/d/loop/loop/deep.json?": {"c/d/loop/loop/deep.jsonl"},
		"top.jsonl/*":              nil,
		"nothing/**":               nil,
		"nothing":                  nil,
		"":                         nil,
	} {
		if got, err := Files(pattern, nil); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", pattern, got, err, want)
		}
	}
	if all, err := Files("**", nil); err != nil || len(all) < 12 {
		t.Errorf("**: %q, %v", all, err)
	}
	if _, err := Files("x[", nil); err == nil {
		t.Error("x[ is a pattern")
	}
}

// Folders that are left out are not among those that ** stands for, unless the pattern names them.
func TestFilesLeaveOut(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"a.txt", "out/b.txt", "in/c.txt", "in/out/d.txt"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pattern, want := range map[string][]string{
		"**/*.txt":       {"a.txt", "in/c.txt"},
		"out/**/*.txt":   {"out/b.txt"},
		"*/*.txt":        {"in/c.txt", "out/b.txt"},
		"**/out/*.txt":   {"in/out/d.txt", "out/b.txt"},
		"./in/**/?.txt":  {"./in/c.txt"},
		"in/out/**/*":    {"in/out/d.txt"},
		"in/out/../**/*": {"in/out/../c.txt", "in/out/../out"},
	} {
		got, err := Files(pattern, func(folder string) bool { return filepath.Base(folder) == "out" })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", pattern, got, err, want)
		}
	}
}
