package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// hint is advice in a message: what went wrong, a colon, and what to do. lasting is in messages about faults, wherever
// these are; all other messages of data, models and commands speak of a mistake in what was typed or in a user's file.
var (
	hint = regexp.MustCompile(`[:;] (and |or )?(the same command|give|run|rerun|start|restore|remove|mend|choose|make|` +
		`free|raise|lower|set|use|name|wait|let|check|copy|update|include|build|try|leave|tokenize|pack|write|add|ask|` +
		`close|open|put|reload|go on|keep|repair|install|correct|save|send|list|stop|end|shard|train|fetch)\b`)
	lasting = regexp.MustCompile(`damaged|truncated|too little memory|changed since|larger than|no longer|computes ` +
		`something else|tokenize its source again|later version|wait: try again|is lost|interrupted`)
)

// TestHintsAreRows: advice that a message gives about a fault is a row of faults.md. testdata/hints.yml says which
// row; a message about a mistake of the user's has no row, because the message says all there is to know.
func TestHintsAreRows(t *testing.T) {
	b, err := os.ReadFile("testdata/hints.yml")
	if err != nil {
		t.Fatal(err)
	}
	var listed struct {
		Faults   map[string][]string // fault of faults.md: parts of messages
		Mistakes []string            // parts of messages
	}
	if err := yaml.Unmarshal(b, &listed); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("faults.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := slices.Clone(listed.Mistakes)
	for fault, messages := range listed.Faults {
		if !strings.Contains(string(page), "\n| "+fault+" | ") {
			t.Errorf("testdata/hints.yml names the fault %q, and faults.md has no such row", fault)
		}
		parts = append(parts, messages...)
	}
	used := map[string]bool{}
	found := 0
	for place, text := range hints(t) {
		runs := strings.HasPrefix(place, "shared/run/") || strings.HasPrefix(place, "pipelines/pipeline/")
		if strings.HasPrefix(place, "pipelines/pipeline/pipelinefile/") || !runs && !lasting.MatchString(text) {
			continue
		}
		found++
		known := false
		for _, part := range parts {
			if strings.Contains(text, part) {
				known, used[part] = true, true
			}
		}
		if !known {
			t.Errorf("%s: %q\ngive this advice a row of faults.md and an entry under faults in docs/testdata/hints.yml, or one "+
				"under mistakes where it is about what the user typed", place, text)
		}
	}
	for _, part := range parts {
		if !used[part] {
			t.Errorf("no message says %q any more: take it out of testdata/hints.yml", part)
		}
	}
	if found < 50 {
		t.Errorf("%d messages with advice: this test misses most", found)
	}
}

// hints are the texts in the programs' source that give advice, by their place.
func hints(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, root := range []string{"../shared", "../stages", "../pipelines"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if _, ok := n.(*ast.Field); ok {
					return false // the tag of a parameter is its description
				}
				e, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				text, constant := literal(e)
				if constant && hint.MatchString(text) {
					at := files.Position(e.Pos())
					all[strings.TrimPrefix(filepath.ToSlash(path), "../")+":"+strconv.Itoa(at.Line)] = text
				}
				return !constant
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// literal is a text in the source, also in several pieces.
func literal(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.ParenExpr:
		return literal(e.X)
	case *ast.BinaryExpr:
		left, ok := literal(e.X)
		right, also := literal(e.Y)
		return left + right, e.Op == token.ADD && (ok || also)
	}
	return "", false
}
