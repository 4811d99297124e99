package param

import (
	"strings"
	"testing"
)

const (
	texts    = "list of texts"
	integers = "list of integers"
)

func TestValuesAreWrittenInOneWay(t *testing.T) {
	for _, c := range []struct{ typ, text, want string }{
		{integers, "0,2", `[0,2]`},
		{integers, "[0, 2]", `[0,2]`},
		{integers, "0x10, 1_000", `[16,1000]`},
		{integers, "7", `[7]`},
		{integers, "none", `[]`},
		{integers, "[]", `[]`},
		{integers, "", `[]`},
		{integers, "[none]", `[]`},
		{integers, "a", `"a"`},
		{integers, "1.5", `"1.5"`},
		{integers, "1,,2", `"1,,2"`},
		{texts, "a, b", `["a","b"]`},
		{texts, `["a","b"]`, `["a","b"]`},
		{texts, `['it''s', "say \"x, y\""]`, `["it's","say \"x, y\""]`},
		{texts, `author = "Roe, Jane"`, `["author = \"Roe, Jane\""]`},
		{texts, `author = 'Roe, Jane', score >= 3`, `["author = 'Roe, Jane'","score >= 3"]`},
		{texts, `'author = "Roe, Jane"'`, `["author = \"Roe, Jane\""]`},
		{texts, `don't, won't`, `["don't","won't"]`},
		{texts, `6" nail, x`, `["6\" nail","x"]`},
		{texts, `codebook.*, !blocks.-1.*, *.gain`, `["codebook.*","!blocks.-1.*","*.gain"]`},
		{texts, `blocks.[0-3].*,head`, `["blocks.[0-3].*","head"]`},
		{texts, `[ab]*,x[cd]`, `["[ab]*","x[cd]"]`},
		{texts, "3, true", `["3","true"]`},
		{texts, `a: b, #c, &d, @e`, `["a: b","#c","&d","@e"]`},
		{"integer", "1e3", `1000`},
		{"integer", "0x10", `16`},
		{"integer", "1_000", `1000`},
		{"integer", "18446744073709551615", `18446744073709551615`},
		{"integer", "x", `"x"`},
		{"number", "1e-3", `1e-3`},
		{"number", ".5", `0.5`},
		{"number", ".nan", `".nan"`},
		{"true or false", "True", `true`},
		{"true or false", "yes", `"yes"`},
		{"text", "true", `"true"`},
		{"text", `"a, b"`, `"a, b"`},
		{"text", "a, b", `"a, b"`},
		{"text", `"a" and "b"`, `"\"a\" and \"b\""`},
		{"text", "it's", `"it's"`},
		{"text", "{role}: {text}\n", `"{role}: {text}\n"`},
	} {
		if got := string(Value(c.typ, c.text)); got != c.want {
			t.Errorf("%s %q is %s, want %s", c.typ, c.text, got, c.want)
		}
	}
}

func TestFilesMayWriteListsAsFlagsDo(t *testing.T) {
	for _, c := range []struct{ typ, value, want string }{
		{integers, `[0,2]`, `[0,2]`},
		{integers, `"0, 2"`, `[0,2]`},
		{integers, `2`, `[2]`},
		{integers, `"none"`, `[]`},
		{integers, `"x"`, `"x"`},
		{integers, `true`, `true`},
		{integers, `null`, `null`},
		{texts, `"score >= 3, language = en"`, `["score >= 3","language = en"]`},
		{texts, `["a, b"]`, `["a, b"]`},
		{"text", `"0, 2"`, `"0, 2"`},
		{"integer", `3`, `3`},
	} {
		if got := string(Normalize(c.typ, []byte(c.value))); got != c.want {
			t.Errorf("%s %s is %s, want %s", c.typ, c.value, got, c.want)
		}
	}
}

func FuzzValue(f *testing.F) {
	f.Add("[a, 'b, c', \"d\\\"\"]")
	f.Add("author = \"Roe, Jane\"")
	f.Fuzz(func(t *testing.T, text string) {
		for _, typ := range []string{texts, integers, "integer", "number", "true or false", "text"} {
			if v := Value(typ, text); !strings.HasPrefix(string(v), `"`) && !Conforms(typ, v) && typ != "integer" &&
				typ != "number" && typ != "true or false" {
				t.Errorf("%s %q is %s", typ, text, v)
			}
		}
	})
}
