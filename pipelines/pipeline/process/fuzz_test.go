package process

import (
	"bytes"
	"testing"
	"unicode/utf8"
)

// FuzzLine reads any line as one of a stage's log: a line that is no JSON object is shown as it is.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","level":"WARN","msg":"slow","error":"disk"}` + "\n"))
	f.Add([]byte("panic: runtime error\n"))
	f.Add([]byte(`{"level":3,"msg":null,"error":["x"]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		text, level := readLine(line)
		if level == "" && text != string(bytes.TrimSpace(line)) && line[bytes.IndexByte(line, '{')] != '{' {
			t.Errorf("%q is shown as %q", line, text)
		}
		if utf8.Valid(line) && !utf8.ValidString(text) {
			t.Errorf("%q is shown as %q", line, text)
		}
	})
}
