package event

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"

	"bitnet1/shared/run/artifact"
)

const referenceHead = `# Events

<!-- Made by "go test ./shared/run/event -update" from the declarations in shared/run/event. -->

A stage in any language needs NATS and [msgpack](https://msgpack.org), and nothing of this project. Events travel on
` + "`bitnet1.<run>.<noun>.<verb>`" + ` and are kept in the JetStream stream ` + "`BITNET1_EVENTS`" + `.
An event is one msgpack map, the envelope below, of at most %d KiB. Readers ignore keys that they do not know; within a
version keys are only added.

` + "`id`" + ` is the SHA-256, in lowercase hex, of the kind, a zero byte, the run, a zero byte and the msgpack bytes of
` + "`body`" + ` exactly as they travel. Give it as the header ` + "`Nats-Msg-Id`" + ` when you publish: the server
then drops an event that it has already. Do not trust lengths in a message: five bytes can claim four thousand million
elements.

[docs/examples/stage.py](../examples/stage.py) makes a program in Python a stage. The [glossary](../glossary.md) has the
terms.

`

// reference makes the page docs/reference/events.md. The sentence about a kind is its comment in the file of
// declarations.
func reference(declarations string) ([]byte, error) {
	comments, err := typeComments(declarations)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, referenceHead, MaxSize>>10)
	section(&page, "## Envelope", "", reflect.TypeFor[Envelope]())
	section(&page, "## Part", "", reflect.TypeFor[Part]())
	section(&page, "## Artifact reference", "", reflect.TypeFor[artifact.Ref]())
	fmt.Fprintf(&page, "# Kinds of version %d\n\nIn the order in which a run meets them.\n\n", Version)
	for _, kind := range Kinds() {
		t := reflect.TypeOf(kind)
		section(&page, "## `"+kind.Kind()+"`", strings.TrimPrefix(comments[t.Name()], t.Name()+" "), t)
	}
	return append(bytes.TrimRight(page.Bytes(), "\n"), '\n'), nil
}

func section(page *bytes.Buffer, title, about string, t reflect.Type) {
	fmt.Fprintf(page, "%s\n\n", title)
	if about != "" {
		fmt.Fprintf(page, "%s%s\n\n", strings.ToUpper(about[:1]), about[1:])
	}
	fmt.Fprint(page, "| key | type | meaning |\n|---|---|---|\n")
	for i := range t.NumField() {
		f := t.Field(i)
		fmt.Fprintf(page, "| `%s` | %s | %s |\n", strings.TrimSuffix(f.Tag.Get("msgpack"), ",omitempty"), typeName(f.Type),
			f.Tag.Get("usage"))
	}
	fmt.Fprintln(page)
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[artifact.Ref]():
		return "artifact reference"
	case t == reflect.TypeFor[Part]():
		return "part"
	case t.Name() == "RawMessage" || t.Kind() == reflect.Map:
		return "map"
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	case t.Kind() == reflect.Slice:
		return "array of " + typeName(t.Elem())
	case t.Kind() == reflect.String:
		return "str"
	case t.Kind() == reflect.Bool:
		return "bool"
	case t.Kind() == reflect.Float64:
		return "float"
	default:
		return "int"
	}
}

// typeComments returns the comments of the types declared in a file, unwrapped.
func typeComments(path string) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	comments := map[string]string{}
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
			name := g.Specs[0].(*ast.TypeSpec).Name.Name
			comments[name] = strings.Join(strings.Fields(g.Doc.Text()), " ")
		}
	}
	return comments, nil
}
