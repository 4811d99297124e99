package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"log"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/mmcloughlin/avo/build"
)

// The instruction sets, as they end the names of functions.
const (
	avx2   = "AVX2"
	avx512 = "AVX512"
)

// innerLoop is an inner loop of kernels/cpu for one instruction set. The Go function of its name, with Go at its end,
// says what it computes and has its parameters.
type innerLoop struct {
	set, name string
	params    []param
	result    string // type, or empty

	step      int    // the assembly computes multiples of so many values; 0: its caller is written by hand
	finite    string // the assembly is for finite values of this parameter alone
	addressOf string // the assembly gets the address of this field of the last parameter, a pointer to a struct
}

type param struct{ name, kind string }

// innerLoops are all of them, in the order of their declaration.
var innerLoops []*innerLoop

// begin declares the assembly of a loop over n values, a multiple of step. Its parameters are those of the Go function,
// with pointers for slices, and n as the last one. Its caller is generated: it leaves the values beyond n to a narrower
// instruction set or to Go.
func begin(set, name string, step int, more ...func(*innerLoop)) {
	l := &innerLoop{set: set, name: name, step: step}
	l.params, l.result = goSignature(name)
	for _, f := range more {
		f(l)
	}
	innerLoops = append(innerLoops, l)
	var params []string
	for _, p := range l.params {
		if p.name != "cols" { // n takes its place
			params = append(params, p.name+" "+l.assemblyType(p))
		}
	}
	signature := fmt.Sprintf("func(%s, n int) %s", strings.Join(params, ", "), l.result)
	declare(set, name, strings.TrimSpace(signature), fmt.Sprintf("for n values, a multiple of %d.", step))
}

// beginOther declares the assembly of a loop of another kind. Its caller is written by hand, in instructions_amd64.go.
func beginOther(set, name, signature, doc string) {
	goSignature(name) // there has to be one
	innerLoops = append(innerLoops, &innerLoop{set: set, name: name})
	declare(set, name, signature, doc)
}

func declare(set, name, signature, doc string) {
	TEXT(name+"Loop"+set, NOSPLIT, signature)
	Doc(fmt.Sprintf("%sLoop%s is %sGo %s", name, set, name, doc))
	Pragma("noescape")
}

func finite(name string) func(*innerLoop)     { return func(l *innerLoop) { l.finite = name } }
func addressOf(field string) func(*innerLoop) { return func(l *innerLoop) { l.addressOf = field } }

func (l *innerLoop) assemblyType(p param) string {
	switch {
	case l.addressOf != "" && strings.HasPrefix(p.kind, "*"):
		return "*float32"
	case strings.HasPrefix(p.kind, "[]"):
		return "*" + p.kind[2:]
	}
	return p.kind
}

// goFunctions are the functions of kernels/cpu whose names end in Go.
var goFunctions = func() map[string]*ast.FuncType {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		log.Fatal(err)
	}
	functions := make(map[string]*ast.FuncType)
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			log.Fatal(err)
		}
		for _, d := range f.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				if name, ok := strings.CutSuffix(f.Name.Name, "Go"); ok {
					functions[name] = f.Type
				}
			}
		}
	}
	return functions
}()

func goSignature(name string) (params []param, result string) {
	f := goFunctions[name]
	if f == nil {
		log.Fatalf("kernels/cpu has no function %sGo: write what the loop computes in Go first", name)
	}
	for _, field := range f.Params.List {
		for _, n := range field.Names {
			params = append(params, param{n.Name, types.ExprString(field.Type)})
		}
	}
	if f.Results != nil {
		result = types.ExprString(f.Results.List[0].Type)
	}
	return params, result
}

// narrower is the name of the function that computes the values beyond the last whole step.
func (l *innerLoop) narrower() string {
	for _, other := range slices.Backward(innerLoops) {
		if other.name == l.name && other.set != l.set && other.step < l.step {
			return l.name + other.set
		}
	}
	return l.name + "Go"
}
