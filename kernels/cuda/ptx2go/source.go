package main

import (
	"fmt"
	"go/constant"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// unit is a .cu file with all that it includes.
type unit struct {
	name      string // without .cu
	text      string // of the headers and of the file
	constants []named
	scope     *types.Package // the constants, for expressions
	aliases   map[string]string
	structs   map[string]*structure
	macros    map[string]*macro
	kernels   []*kernel
	families  []*family
	module    *module
}

// named is an integer constant.
type named struct {
	name  string
	value int64
}

// kernel is one definition with KERNEL.
type kernel struct {
	name       string
	annotation string // the category and what stands behind it
	category   string
	float      bool
	dynamic    bool  // has dynamic shared memory
	shared     int64 // bytes of it, where the source says so
	params     []field
}

// macro is a C macro that makes kernels.
type macro struct {
	name, body string
	params     []string
}

// family is what one use of a macro that makes several kernels made.
type family struct {
	macro   string
	variant string   // what the use adds to the kernels' names
	fields  []string // the kernels' names without it
	kernels []*kernel
}

var (
	include  = regexp.MustCompile(`(?m)^#include "(\w+\.cuh)"\n`)
	comment  = regexp.MustCompile(`//[^\n]*`)
	define   = regexp.MustCompile(`(?m)^#define (\w+)\(([^)]*)\)((?:.*\\\n)*.*)\n`)
	constInt = regexp.MustCompile(`(?m)^constexpr int ([^;]*);`)
	bare     = regexp.MustCompile(`(?m)^[^#\n]*\b__global__\b`)
	using    = regexp.MustCompile(`(?m)^using (\w+) = (\w+)<[^;]*>;`)
	plain    = regexp.MustCompile(`^[\w\s+*/()-]+$`)
	pasting  = regexp.MustCompile(`\s*##\s*`)
	word     = regexp.MustCompile(`\w+`)
	defined  = regexp.MustCompile(`^\s*void\s+(\w+)\s*\(`)
	category = regexp.MustCompile(`^(\w*)( float)?( shared(?:\((.*)\))?)?$`)
)

// parse reads a source.
func parse(dir, name string) (*unit, error) {
	u := &unit{
		name: strings.TrimSuffix(name, ".cu"), aliases: map[string]string{},
		structs: map[string]*structure{}, macros: map[string]*macro{},
	}
	text, err := withIncludes(dir, name, map[string]bool{})
	if err != nil {
		return nil, err
	}
	prelude, err := os.ReadFile(filepath.Join(dir, "prelude.cuh"))
	if err != nil {
		return nil, err
	}
	u.text = string(prelude) + text
	code := comment.ReplaceAllString(u.text, "")
	if err := u.findConstants(code); err != nil {
		return nil, err
	}
	for _, found := range using.FindAllStringSubmatch(code, -1) {
		u.aliases[found[1]] = found[2]
	}
	u.findMacros(code)
	code = define.ReplaceAllString(code, "")
	if bare.MatchString(code) {
		return nil, fmt.Errorf("a kernel begins with __global__: begin it with KERNEL (see prelude.cuh)")
	}
	if u.kernels, err = u.findKernels(code); err != nil {
		return nil, err
	}
	for _, k := range u.kernels {
		if err := u.annotate(k); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.name, err)
		}
	}
	return u, nil
}

// withIncludes is a file's text behind that of the headers that it includes, each once.
func withIncludes(dir, name string, seen map[string]bool) (string, error) {
	if seen[name] {
		return "", nil
	}
	seen[name] = true
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	var headers strings.Builder
	for _, found := range include.FindAllStringSubmatch(string(text), -1) {
		header, err := withIncludes(dir, found[1], seen)
		if err != nil {
			return "", err
		}
		headers.WriteString(header)
	}
	return headers.String() + include.ReplaceAllString(string(text), ""), nil
}

// findConstants evaluates the constants at file scope.
func (u *unit) findConstants(code string) error {
	u.scope = types.NewPackage(u.name, u.name)
	for _, list := range constInt.FindAllStringSubmatch(code, -1) {
		for one := range strings.SplitSeq(list[1], ",") {
			name, expression, _ := strings.Cut(one, "=")
			name = strings.TrimSpace(name)
			value, err := u.evaluate(expression)
			if err != nil {
				return fmt.Errorf("constant %s: %w", name, err)
			}
			c := types.NewConst(token.NoPos, u.scope, name, types.Typ[types.Int], constant.MakeInt64(value))
			u.scope.Scope().Insert(c)
			u.constants = append(u.constants, named{name, value})
		}
	}
	return nil
}

// evaluate computes an integer expression of constants. Its operators are those that C and Go read alike.
func (u *unit) evaluate(expression string) (int64, error) {
	if !plain.MatchString(expression) {
		return 0, fmt.Errorf("%s: want an expression of integers with + - * / and parentheses", strings.TrimSpace(expression))
	}
	v, err := types.Eval(token.NewFileSet(), u.scope, token.NoPos, strings.Join(strings.Fields(expression), " "))
	if err != nil {
		return 0, err
	}
	n, ok := constant.Int64Val(constant.ToInt(v.Value))
	if !ok {
		return 0, fmt.Errorf("%s is no integer", strings.TrimSpace(expression))
	}
	return n, nil
}

// findMacros keeps the macros that make kernels, by themselves or through others.
func (u *unit) findMacros(code string) {
	for _, found := range define.FindAllStringSubmatch(code, -1) {
		m := &macro{name: found[1], body: strings.ReplaceAll(found[3], "\\\n", "\n")}
		for p := range strings.SplitSeq(found[2], ",") {
			m.params = append(m.params, strings.TrimSpace(p))
		}
		if m.name != "KERNEL" && u.makesKernels(m.body) {
			u.macros[m.name] = m
		}
	}
}

func (u *unit) makesKernels(body string) bool {
	return slices.ContainsFunc(word.FindAllString(body, -1),
		func(w string) bool { return w == "KERNEL" || u.macros[w] != nil })
}

// expand is what the preprocessor makes of a use of m.
func (m *macro) expand(arguments []string) string {
	by := map[string]string{}
	for i, p := range m.params {
		by[p] = arguments[i]
	}
	body := word.ReplaceAllStringFunc(m.body, func(w string) string {
		if argument, ok := by[w]; ok {
			return argument
		}
		return w
	})
	return pasting.ReplaceAllString(body, "")
}

// findKernels lists the kernels that code defines, in order, and notes families.
func (u *unit) findKernels(code string) (list []*kernel, err error) {
	for at := 0; ; {
		found := word.FindStringIndex(code[at:])
		if found == nil {
			return list, nil
		}
		w, end := code[at+found[0]:at+found[1]], at+found[1]
		at = end
		if w != "KERNEL" && u.macros[w] == nil {
			continue
		}
		arguments, rest, ok := argumentsOf(code[end:])
		if !ok {
			return nil, fmt.Errorf("%s without arguments", w)
		}
		at = len(code) - len(rest)
		if w == "KERNEL" {
			k, err := parseKernel(arguments[0], rest)
			if err != nil {
				return nil, err
			}
			list = append(list, k)
			continue
		}
		made, err := u.useMacro(u.macros[w], arguments)
		if err != nil {
			return nil, fmt.Errorf("%s(%s): %w", w, strings.Join(arguments, ", "), err)
		}
		list = append(list, made...)
	}
}

// useMacro lists the kernels that a use of a macro makes. Several are a family.
func (u *unit) useMacro(m *macro, arguments []string) ([]*kernel, error) {
	if len(arguments) != len(m.params) {
		return nil, fmt.Errorf("want %d arguments", len(m.params))
	}
	families := u.families
	made, err := u.findKernels(m.expand(arguments))
	if err != nil || len(made) < 2 {
		return made, err
	}
	u.families = families // those within are part of this one
	bare, err := u.findKernels(m.expand(make([]string, len(m.params))))
	if err != nil {
		return nil, err
	}
	u.families = families
	f := &family{macro: m.name, kernels: made}
	for i, k := range made {
		variant, ok := strings.CutPrefix(k.name, bare[i].name)
		if !ok || i > 0 && variant != f.variant {
			return nil, fmt.Errorf("the name %s must end with what the macro's argument adds, as the other names do", k.name)
		}
		f.variant = variant
		f.fields = append(f.fields, bare[i].name)
	}
	u.families = append(u.families, f)
	return made, nil
}

// argumentsOf splits what stands between the parentheses at the beginning of code.
func argumentsOf(code string) (list []string, rest string, ok bool) {
	if !strings.HasPrefix(code, "(") {
		return nil, code, false
	}
	depth, from := 0, 1
	for i, r := range code {
		switch {
		case r == '(':
			depth++
		case r == ')' && depth == 1:
			return append(list, strings.TrimSpace(code[from:i])), code[i+1:], true
		case r == ')':
			depth--
		case r == ',' && depth == 1:
			list = append(list, strings.TrimSpace(code[from:i]))
			from = i + 1
		}
	}
	return nil, code, false
}

// parseKernel reads the definition that follows KERNEL(annotation, …).
func parseKernel(annotation, code string) (*kernel, error) {
	found := defined.FindStringSubmatchIndex(code)
	if found == nil {
		return nil, fmt.Errorf("KERNEL(%s) is not followed by void NAME(…)", annotation)
	}
	k := &kernel{name: code[found[2]:found[3]], annotation: annotation}
	params, _, ok := argumentsOf(code[found[1]-1:])
	if !ok {
		return nil, fmt.Errorf("kernel %s: its parameters have no end", k.name)
	}
	for _, p := range params {
		words := slices.DeleteFunc(strings.Fields(strings.ReplaceAll(p, "*", " * ")), func(w string) bool {
			return w == "const" || w == "__grid_constant__"
		})
		if len(words) == 0 {
			continue
		}
		last := len(words) - 1
		k.params = append(k.params, field{name: words[last], base: strings.Join(words[:last], " ")})
	}
	return k, nil
}

// categories are the words for kernels/timing's categories.
var categories = map[string]string{
	"binary_products": "BinaryProducts", "byte_products": "ByteProducts", "packing": "Packing", "rounding": "Rounding",
	"attention": "Attention", "elementwise": "Elementwise", "loss": "Loss", "optimizer": "Optimizer", "copies": "Copies",
}

// annotate reads a kernel's annotation and the types of its parameters.
func (u *unit) annotate(k *kernel) error {
	found := category.FindStringSubmatch(k.annotation)
	if found == nil {
		return fmt.Errorf("unknown annotation %q: want CATEGORY [float] [shared | shared(BYTES)]", k.annotation)
	}
	if k.category = categories[found[1]]; k.category == "" {
		return fmt.Errorf("unknown category %q: want one of %s", found[1], strings.Join(sortedKeys(categories), ", "))
	}
	k.float, k.dynamic = found[2] != "", found[3] != ""
	if found[4] != "" {
		var err error
		if k.shared, err = u.evaluate(found[4]); err != nil {
			return fmt.Errorf("shared memory: %w", err)
		}
	}
	for i := range k.params {
		if err := u.resolve(&k.params[i]); err != nil {
			return fmt.Errorf("parameter %s: %w", k.params[i].name, err)
		}
	}
	return nil
}

// check compares the source with its PTX.
func (u *unit) check() error {
	left := sortedKeys(u.module.entries)
	for _, k := range u.kernels {
		e := u.module.entries[k.name]
		if e == nil {
			return fmt.Errorf("kernel %s is not in the PTX: run compile.sh", k.name)
		}
		left = slices.DeleteFunc(left, func(name string) bool { return name == k.name })
		if err := k.compare(e); err != nil {
			return fmt.Errorf("kernel %s: %w", k.name, err)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("the PTX has kernels that the source lacks, %s: run compile.sh", strings.Join(left, ", "))
	}
	return nil
}

func (k *kernel) compare(e *entry) error {
	if len(k.params) != len(e.params) {
		return fmt.Errorf("%d parameters, in the PTX %d", len(k.params), len(e.params))
	}
	for i, f := range k.params {
		p := e.params[i]
		if f.kind.size != p.size || f.kind.align != p.align || f.kind.pointer != p.pointer {
			return fmt.Errorf("parameter %s is %v, in the PTX %v", f.name, param{f.kind.size, f.kind.align, f.kind.pointer}, p)
		}
	}
	switch {
	case e.shared && !k.dynamic:
		return fmt.Errorf("it uses dynamic shared memory: add shared(BYTES) to its category")
	case k.dynamic && !e.shared:
		return fmt.Errorf("it uses no dynamic shared memory: take shared away from its category")
	}
	return nil
}

func (p param) String() string {
	if p.pointer {
		return "a pointer"
	}
	return fmt.Sprintf("of %d bytes, aligned to %d", p.size, p.align)
}
