package corpus

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sample(t *testing.T) (string, Report) {
	t.Helper()
	dir := t.TempDir()
	report, err := Sample(dir)
	if err != nil {
		t.Skipf("no sample corpus on this machine: %v", err)
	}
	for _, m := range report.Missing {
		t.Logf("left out: %s", m)
	}
	return dir, report
}

func TestSampleIsDeterministic(t *testing.T) {
	a, report := sample(t)
	b, _ := sample(t)
	for _, book := range report.Books {
		x, err := os.ReadFile(filepath.Join(a, book.File))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, book.File))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			t.Errorf("%s differs between two calls", book.File)
		}
	}
}

func TestSampleReport(t *testing.T) {
	_, report := sample(t)
	for _, b := range report.Books {
		t.Logf("%-65s %3d documents %7d bytes %6d tokens", b.Title, b.Documents, b.Bytes, b.Tokens)
		if b.Documents < 10 || b.Bytes < 300_000 || b.Tokens < b.Bytes/8 || b.Tokens > b.Bytes {
			t.Errorf("implausible: %+v", b)
		}
	}
	documents, size, tokens := report.Totals()
	if documents == 0 || size == 0 || tokens == 0 {
		t.Errorf("totals are %d documents, %d bytes, %d tokens", documents, size, tokens)
	}
}

func TestDocumentsAreProse(t *testing.T) {
	for _, b := range books {
		docs, err := b.documents()
		if err != nil {
			t.Logf("%s: %v", b.name, err)
			continue
		}
		for i, d := range docs {
			text := string(d)
			if len(text) < 200 {
				t.Errorf("%s: document %d has only %d bytes: %q", b.name, i, len(text), text)
			}
			for _, stray := range []string{"Gutenberg", "\r", "\uFEFF", "Distributed Proofreading"} {
				if strings.Contains(text, stray) {
					t.Errorf("%s: document %d contains %q", b.name, i, stray)
				}
			}
		}
	}
}

func TestBodyCutsBoilerplate(t *testing.T) {
	got := string(
		body([]byte("\uFEFFThe Project Gutenberg EBook\r\n*** START OF THIS EBOOK ***\r\nIt was.\r\n\r\n" +
			"End of the Project Gutenberg EBook\r\n*** END OF THIS EBOOK ***\r\nlicence")))
	if strings.TrimSpace(got) != "It was." {
		t.Errorf("%q", got)
	}
}
