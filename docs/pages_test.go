package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// path is a path of the project, as pages and messages write it. It may end in a word for what varies.
var path = regexp.MustCompile(`\b(?:docs|kernels|pipelines|shared|stages|tools)(?:/[A-Za-z0-9_.-]+)+`)

// exists reports whether a path names something of the project, with or without the full stop of its sentence.
func exists(named string) bool {
	_, err := os.Stat(filepath.Join("..", strings.TrimRight(named, ".")))
	return err == nil
}

// What pages name of the project is there.
func TestPathsOfPagesExist(t *testing.T) {
	links := regexp.MustCompile(`\]\([^)]*\)`) // TestLinksLeadSomewhere checks them
	for page, text := range pages(t) {
		for _, named := range path.FindAllString(links.ReplaceAllString(text, ""), -1) {
			if !exists(named) {
				t.Errorf("%s names %s, which is not there", page, named)
			}
		}
	}
}

// A page to which a program's message sends people is there.
func TestPagesOfMessagesExist(t *testing.T) {
	page := regexp.MustCompile(`\bdocs/[A-Za-z0-9_/.-]+\.md`)
	found := 0
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return filepath.SkipDir
		case !strings.HasSuffix(file, ".go"):
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				for _, named := range page.FindAllString(text.Value, -1) {
					found++
					if !exists(named) {
						t.Errorf("%s sends people to %s, which is not there", file, named)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil || found == 0 {
		t.Fatalf("%d pages named, error %v", found, err)
	}
}

// A page that uses an abbreviation of the project writes it out or links the glossary.
func TestPagesExplainAbbreviations(t *testing.T) {
	inFull := map[string]string{
		"RWSP": "rank-weighted survivor pointer", "IPMR": "induction pointer match rate", "HDR": "head diversity ratio",
		"STE": "straight-through", "M4": "first four survivors", "ALiBi": "linear biases", "K-shift": "an earlier token",
	}
	for page, text := range pages(t) {
		for short, full := range inFull {
			used := regexp.MustCompile(`\b` + short + `\b`).MatchString(text)
			if used && !strings.Contains(text, full) && !strings.Contains(text, "glossary.md") {
				t.Errorf("%s uses %s, and neither writes it out (%s) nor links docs/glossary.md", page, short, full)
			}
		}
	}
}
