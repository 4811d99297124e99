package artifact

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/digest"
)

// A file that grows is compared with the longest beginning of it that is known, whatever follows.
func TestTheBeginningOfAFileIsVerified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "train.jsonl")
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "one\ntwo\nthree\n")
	if err := VerifyLengths(path); err != nil {
		t.Errorf("nothing is known of it: %v", err)
	}
	one, two := Length{4, digest.Bytes([]byte("one\n"))}, Length{8, digest.Bytes([]byte("one\ntwo\n"))}
	b, err := json.Marshal(Lengths{[]Length{one, two}})
	if err != nil {
		t.Fatal(err)
	}
	lengths := string(digest.AppendChecksum(b))
	write(LengthsName(path), lengths)
	for content, sound := range map[string]bool{
		"one\ntwo\nthree\n": true, "one\ntwo\n": true, "one\ntwo": false, "one\ntwp\nthree\n": false, "": false,
	} {
		write(path, content)
		if err := VerifyLengths(path); errors.Is(err, ErrDamaged) == sound || err == nil != sound {
			t.Errorf("%q: %v", content, err)
		}
	}
	write(path, "one\ntwo\n")
	write(LengthsName(path), lengths[:len(lengths)-9]+"0"+lengths[len(lengths)-8:])
	if err := VerifyLengths(path); !errors.Is(err, digest.ErrChecksum) {
		t.Errorf("the lengths are damaged: %v", err)
	}
}
