package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kind is a type of both languages; its size and alignment are those of C in bytes, which Go shares but for alignas.
type kind struct {
	field       string // the type of a struct's field in Go
	param       string // the type of a launcher's parameter in Go
	size, align int
	pointer     bool
	structure   *structure
}

var kinds = map[string]kind{
	"char": {"int8", "int8", 1, 1, false, nil}, "uint16_t": {"uint16", "uint16", 2, 2, false, nil},
	"int": {"int32", "int", 4, 4, false, nil}, "uint32_t": {"uint32", "uint32", 4, 4, false, nil},
	"long": {"int64", "int", 8, 8, false, nil}, "uint64_t": {"uint64", "uint64", 8, 8, false, nil},
	"float": {"float32", "float32", 4, 4, false, nil}, "double": {"float64", "float64", 8, 8, false, nil},
	// What the driver encodes, and neither language looks into.
	"TensorMap": {"driver.TensorMap", "driver.TensorMap", 128, 64, false, nil},
}

// field is a parameter of a kernel or a field of a struct.
type field struct {
	name, base string
	dimensions []int // of an array
	kind       kind  // of an element
	comments   []string
	trailing   string // comment on the same line
}

// structure is a C struct that a kernel has among its parameters.
type structure struct {
	name        string
	fields      []field
	constants   []named // its static constexpr int
	size, align int
	comment     []string
}

// resolve finds the type of a field.
func (u *unit) resolve(f *field) error {
	if strings.Contains(f.base, "*") {
		f.kind = kind{"cu.DevicePtr", "cu.DevicePtr", 8, 8, true, nil}
		return nil
	}
	if k, ok := kinds[f.base]; ok {
		f.kind = k
		return nil
	}
	name, _, _ := strings.Cut(f.base, "<")
	name = cmp.Or(u.aliases[name], name)
	s, err := u.structure(name)
	if err != nil {
		return err
	}
	f.kind = kind{lower(name), lower(name), s.size, s.align, false, s}
	return nil
}

var (
	fieldLine = regexp.MustCompile(`^(?:const )?([\w<>]+)((?: ?[&*]+)? ?\w.*)$`)
	declared  = regexp.MustCompile(`^(\**)\s*(\w+)((?:\[[^\]]*\])*)$`)
	dimension = regexp.MustCompile(`\[([^\]]*)\]`)
)

// structure reads the definition of a struct once.
func (u *unit) structure(name string) (*structure, error) {
	if s := u.structs[name]; s != nil {
		return s, nil
	}
	definition := regexp.MustCompile(`(?m)((?:^//.*\n)*)^(?:template <[^>]*>\s)?struct ` + name + ` \{`)
	found := definition.FindAllStringSubmatchIndex(u.text, -1)
	if len(found) != 1 {
		return nil, fmt.Errorf("struct %s has %d definitions: want one", name, len(found))
	}
	s := &structure{name: name}
	if comment := u.text[found[0][2]:found[0][3]]; comment != "" {
		s.comment = strings.Split(strings.TrimSuffix(comment, "\n"), "\n")
	}
	if err := u.readFields(s, u.text[found[0][1]:]); err != nil {
		return nil, fmt.Errorf("struct %s: %w", name, err)
	}
	s.lay()
	u.structs[name] = s
	return s, nil
}

// readFields reads a struct's fields from what follows its brace. Member functions and nested types are left out.
func (u *unit) readFields(s *structure, text string) error {
	var comments []string
	statement, depth := "", 0
	for line := range strings.Lines(text) {
		code, note, noted := strings.Cut(strings.TrimSpace(line), "//")
		code = strings.TrimSpace(code)
		if depth == 0 && strings.HasPrefix(code, "}") {
			return nil
		}
		if code == "" {
			if noted && depth == 0 && statement == "" {
				comments = append(comments, "//"+note)
			}
			continue
		}
		statement += " " + code
		depth += strings.Count(code, "{") - strings.Count(code, "}")
		if depth > 0 || !strings.HasSuffix(code, ";") && !strings.HasSuffix(code, "}") {
			continue
		}
		if noted {
			note = "//" + note
		}
		if err := u.addFields(s, strings.TrimSpace(statement), comments, note); err != nil {
			return err
		}
		statement, comments = "", nil
	}
	return fmt.Errorf("its definition has no end")
}

// addFields adds what one statement of a struct declares.
func (u *unit) addFields(s *structure, statement string, comments []string, trailing string) error {
	if list, ok := strings.CutPrefix(statement, "static constexpr int "); ok {
		for one := range strings.SplitSeq(strings.TrimSuffix(list, ";"), ",") {
			name, expression, _ := strings.Cut(one, "=")
			if value, err := u.evaluate(expression); err == nil { // others are of use to the kernel alone
				s.constants = append(s.constants, named{strings.TrimSpace(name), value})
			}
		}
		return nil
	}
	if strings.ContainsAny(statement, "({") || strings.HasPrefix(statement, "static ") {
		return nil // a function or a type
	}
	found := fieldLine.FindStringSubmatch(strings.TrimSuffix(statement, ";"))
	if found == nil {
		return fmt.Errorf("cannot read %q", statement)
	}
	for i, one := range strings.Split(found[2], ",") {
		parts := declared.FindStringSubmatch(strings.TrimSpace(one))
		if parts == nil {
			return fmt.Errorf("cannot read %q", statement)
		}
		f := field{name: parts[2], base: found[1] + parts[1], trailing: trailing}
		if i == 0 {
			f.comments = comments
		}
		for _, d := range dimension.FindAllStringSubmatch(parts[3], -1) {
			n, err := u.evaluate(d[1])
			if err != nil {
				return fmt.Errorf("field %s: %w", f.name, err)
			}
			f.dimensions = append(f.dimensions, int(n))
		}
		if err := u.resolve(&f); err != nil {
			return fmt.Errorf("field %s: %w", f.name, err)
		}
		s.fields = append(s.fields, f)
	}
	return nil
}

// lay computes size and alignment.
func (s *structure) lay() {
	s.align = 1
	for _, f := range s.fields {
		size := f.kind.size
		for _, n := range f.dimensions {
			size *= n
		}
		s.size = roundUp(s.size, f.kind.align) + size
		s.align = max(s.align, f.kind.align)
	}
	s.size = roundUp(s.size, s.align)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// goType is the type of f as a field.
func (f *field) goType() string {
	var array strings.Builder
	for _, n := range f.dimensions {
		array.WriteString("[" + strconv.Itoa(n) + "]")
	}
	return array.String() + f.kind.field
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
