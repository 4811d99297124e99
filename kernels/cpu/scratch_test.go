package cpu

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every buffer of the scratch memory is named in exactly one function, so that nothing else can write to it while it is
// in use.
func TestEveryScratchBufferBelongsToOneFunction(t *testing.T) {
	source := make(map[string]string)
	for _, name := range sourceFiles(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source[name] = string(text)
	}
	if wrong := buffersWithoutOneFunction(t, source); len(wrong) > 0 {
		t.Errorf("want one function each, give every other one a buffer of its own:\n%s", strings.Join(wrong, "\n"))
	}
	for _, c := range []struct{ add, want string }{
		{"func second(d *Device) { use(&d.shared.logits) }", "sharedScratch.logits: logits, second"},
		{"func second(memory *scratch) { memory.tokenRow.take(1) }", "scratch.tokenRow: EmbedBackward, second"},
	} {
		source["second.go"] = "package cpu\n" + c.add
		if wrong := buffersWithoutOneFunction(t, source); !slices.Equal(wrong, []string{c.want}) {
			t.Errorf("with %q: %q, want %q", c.add, wrong, c.want)
		}
	}
}

func sourceFiles(t *testing.T) (files []string) {
	t.Helper()
	all, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}

// buffersWithoutOneFunction lists the buffers that no function or several name, with these functions.
func buffersWithoutOneFunction(t *testing.T, source map[string]string) (wrong []string) {
	t.Helper()
	fset, info := token.NewFileSet(), &types.Info{Selections: make(map[*ast.SelectorExpr]*types.Selection)}
	var files []*ast.File
	for name, text := range source {
		f, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	// What the imports declare is not needed: errors about it are passed over.
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	pkg, _ := config.Check("cpu", fset, files, info)
	owners := make(map[types.Object]map[string]bool)
	for _, f := range files {
		for _, declared := range f.Decls {
			function, ok := declared.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(function, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && info.Selections[s] != nil {
					field := info.Selections[s].Obj()
					if owners[field] == nil {
						owners[field] = make(map[string]bool)
					}
					owners[field][function.Name.Name] = true
				}
				return true
			})
		}
	}
	for _, name := range []string{"scratch", "sharedScratch"} {
		fields := pkg.Scope().Lookup(name).Type().Underlying().(*types.Struct)
		for field := range fields.Fields() {
			if functions := owners[field]; len(functions) != 1 {
				wrong = append(wrong, name+"."+field.Name()+": "+strings.Join(slices.Sorted(maps.Keys(functions)), ", "))
			}
		}
	}
	return wrong
}

type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, filepath.Base(path))
	p.MarkComplete()
	return p, nil
}
