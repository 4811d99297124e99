package documents

import (
	"encoding/json"
	"testing"

	"bitnet1/shared/alloctest"
)

// FuzzMembers compares the walk over an object with encoding/json.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{`{}`, ` { "a" : 1 , "b":[1,{"c":"}"}],"\u0061":"\\\"" } `,
		`{"a":{"b":[[],{}]},"c":null,"d":-1.5e3}`, `{"":""}`, `{"k":"a\\","l":"\"]"}`,
		`{"a":NaN,"b":[-Infinity],"NaN":"NaN"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var object []byte
		var err error
		alloctest.AtMost(t, 1<<16+64*int64(len(line)), func() { object, err = parseObject(line) })
		line, object = relax(line), relax(object) // NaN and Infinity are numbers here alone
		var want map[string]json.RawMessage
		if e := json.Unmarshal(line, &want); (e == nil && want != nil) != (err == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", line, err, e)
		}
		if err != nil {
			return
		}
		got := map[string]string{}
		for m := range members(object) {
			// encoding/json replaces bytes that are not UTF-8; a round trip does so here.
			key, _ := json.Marshal(string(m.key))
			var name string
			json.Unmarshal(key, &name)
			got[name] = string(m.value)
			if m.value[0] == '[' {
				var list []json.RawMessage
				if err := json.Unmarshal(m.value, &list); err != nil {
					t.Fatal(err)
				}
				i := 0
				for e := range elements(m.value) {
					if i >= len(list) || string(e) != string(list[i]) {
						t.Fatalf("%q: element %d is %q", m.value, i, e)
					}
					i++
				}
				if i != len(list) {
					t.Fatalf("%q: %d elements of %d", m.value, i, len(list))
				}
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%q: %v, want %v", line, got, want)
		}
		for k, v := range want {
			if got[k] != string(v) {
				t.Fatalf("%q: %q is %q, want %q", line, k, got[k], v)
			}
		}
	})
}
