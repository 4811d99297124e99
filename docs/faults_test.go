package docs

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every row about a fault names a test that exists.
func TestFaultsHaveTests(t *testing.T) {
	page, err := os.ReadFile("faults.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`^\[(Test\w+)\]\(\.\./(\S+_test\.go)\)$`)
	rows := 0
	about := false // in a table of faults
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		about = len(cells) == 5 && (about || strings.TrimSpace(cells[0]) == "fault")
		if !about || strings.TrimSpace(cells[0]) == "fault" || strings.HasPrefix(cells[0], "---") {
			continue
		}
		rows++
		for _, name := range strings.Split(cells[4], ", ") {
			test := named.FindStringSubmatch(strings.TrimSpace(name))
			if test == nil {
				t.Errorf("%s: the last cell of a fault is [TestName](../FILE_test.go)", line)
				continue
			}
			if b, err := os.ReadFile("../" + test[2]); err != nil || !strings.Contains(string(b), "\nfunc "+test[1]+"(") {
				t.Errorf("%s names %s in %s, which is not there", line, test[1], test[2])
			}
		}
	}
	if rows == 0 {
		t.Error("no fault found")
	}
}
