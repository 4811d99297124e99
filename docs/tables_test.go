package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A table that a page shows of a results file stands between two comments. The first has the command that prints the
// table, seen from the page's folder:
//
//	<!-- table: experiment table --markdown --where preset=75M v77.jsonl -->
//	| model | …
//	<!-- end of table -->

const (
	beginOfTable = "<!-- table: experiment"
	endOfTable   = "<!-- end of table -->"
)

var pageTable = regexp.MustCompile(`(?ms)^(<!-- table: (experiment table [^\n]*?) -->\n)(.*?)^` + endOfTable + `$`)

// TestTablesOfPages compares the tables of all pages with what their commands print of the results files. `go test
// ./docs -update` writes them anew.
func TestTablesOfPages(t *testing.T) {
	found := 0
	for page, text := range pages(t) {
		now, err := withTables(t, filepath.Dir(page), text)
		if err != nil {
			t.Errorf("%s: %v", page, err)
			continue
		}
		if found += strings.Count(text, endOfTable); now == text {
			continue
		}
		if *update {
			if err := os.WriteFile(page, []byte(now), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Errorf("%s: a table is not what its command prints: go test ./docs -update writes it. The page would be\n%s", page,
			now)
	}
	if found == 0 {
		t.Error("no page has a table of a results file")
	}
}

// withTables is a page's text with what the commands print in place of its tables.
func withTables(t *testing.T, dir, text string) (string, error) {
	t.Helper()
	tables := len(pageTable.FindAllString(text, -1))
	begun, ended := strings.Count(text, beginOfTable), strings.Count(text, endOfTable)
	if begun != tables || ended != tables {
		return "", fmt.Errorf("%d comments begin a table and %d end one, each a line of its own; %d are pairs", begun, ended,
			tables)
	}
	var failed error
	now := pageTable.ReplaceAllStringFunc(text, func(whole string) string {
		m := pageTable.FindStringSubmatch(whole)
		printed, status := inShell(t, dir, m[2])
		if status != 0 {
			failed = fmt.Errorf("%s\nends with status %d: %s", m[2], status, printed)
		}
		return m[1] + printed + endOfTable
	})
	return now, failed
}

// A page's table follows its results file: another run in the file is another table.
func TestTablesFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	run := `{"model":"v77","seed":%d,"tokens":1000000,"results":{"validation_bits":%v}}` + "\n"
	file := filepath.Join(dir, "runs.jsonl")
	write(t, file, fmt.Sprintf(run, 1, 6.25))
	page := "Before.\n\n<!-- table: experiment table --markdown --columns seeds,validation_bits runs.jsonl -->\nold\n" +
		"<!-- end of table -->\n\nAfter.\n"
	one, err := withTables(t, dir, page)
	if err != nil || !strings.Contains(one, "\n| v77 | 1 | 6.250 |\n") || strings.Contains(one, "old") ||
		!strings.HasPrefix(one, "Before.\n\n<!-- table: ") || !strings.HasSuffix(one, "<!-- end of table -->\n\nAfter.\n") {
		t.Errorf("%v:\n%s", err, one)
	}
	if again, err := withTables(t, dir, one); err != nil || again != one {
		t.Errorf("made anew it is another page (%v):\n%s", err, again)
	}
	write(t, file, fmt.Sprintf(run, 1, 6.25)+fmt.Sprintf(run, 2, 6.75))
	if two, err := withTables(t, dir, one); err != nil || !strings.Contains(two, "\n| v77 | 2 | 6.500 ± 0.250 |\n") {
		t.Errorf("%v:\n%s", err, two)
	}
	for want, page := range map[string]string{
		"1 comments begin a table and 0 end one": strings.Replace(page, "<!-- end of table -->", "", 1),
		"0 comments begin a table and 1 end one": strings.Replace(page, "<!-- table: ", "<!-- ", 1),
		"0 are pairs":                            strings.Replace(page, "experiment table", "experiment grid", 1),
		"no such file":                           strings.Replace(page, "runs.jsonl", "gone.jsonl", 1),
		"did you mean":                           strings.Replace(page, "validation_bits", "validation_bit", 1),
	} {
		if now, err := withTables(t, dir, page); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q:\n%s", err, want, now)
		}
	}
}
