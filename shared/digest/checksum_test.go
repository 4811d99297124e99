package digest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// small are files of each form: a reader that knows no checksums finds in them what was written.
func small(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{
		"text": []byte("3\n"), "lines of JSON": []byte("{\"a\":1}\n{\"a\":2}\n"), "JSON": []byte(`{"a":[1,2]}`),
		"indented JSON": []byte("{\n  \"a\": {\n    \"b\": 1\n  }\n}\n"),
	}
	for _, members := range []int{1, 14, 15, 16, 300} {
		m := map[string]int{}
		for i := range members {
			m[fmt.Sprint(i)] = i
		}
		b, err := msgpack.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		all["msgpack of "+strings.Repeat("I", members)] = b
	}
	return all
}

func TestAFileWithAChecksumIsStillTheFile(t *testing.T) {
	for name, b := range small(t) {
		before := bytes.Clone(b)
		whole := AppendChecksum(b)
		if !bytes.Equal(b, before) {
			t.Errorf("%s: the bytes that were given have changed", name)
		}
		if err := VerifyChecksum(whole); err != nil || !HasChecksum(whole) {
			t.Errorf("%s: %v, has %v", name, err, HasChecksum(whole))
		}
		if err := VerifyChecksum(b); err != nil || HasChecksum(b) {
			t.Errorf("%s, as older versions wrote it: %v, has %v", name, err, HasChecksum(b))
		}
		if len(whole) > len(b)+ChecksumSize {
			t.Errorf("%s: %d bytes more", name, len(whole)-len(b))
		}
		var was, is map[string]any
		switch {
		case strings.HasPrefix(name, "msgpack"):
			if err := errors.Join(msgpack.Unmarshal(b, &was), msgpack.Unmarshal(whole, &is)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case strings.Contains(name, "JSON"):
			last := func(b []byte) []byte { // the whole, or the last of the lines
				if name == "lines of JSON" {
					b = bytes.Split(bytes.TrimSpace(b), []byte("\n"))[1]
				}
				return b
			}
			if err := errors.Join(json.Unmarshal(last(b), &was), json.Unmarshal(last(whole), &is)); err != nil {
				t.Errorf("%s: %v in %s", name, err, whole)
			}
		default:
			if content, err := CutChecksum(whole); err != nil || !bytes.Equal(content, b) {
				t.Errorf("%s: %q, %v", name, content, err)
			}
			continue
		}
		if len(is) != len(was)+1 {
			t.Errorf("%s: %d members, and %d with the checksum", name, len(was), len(is))
		}
	}
}

func TestAFlippedBitIsNoticed(t *testing.T) {
	for name, b := range small(t) {
		whole := AppendChecksum(b)
		for i := range 8 * len(whole) {
			whole[i/8] ^= 1 << (i % 8)
			if err := VerifyChecksum(whole); !errors.Is(err, ErrChecksum) {
				t.Errorf("%s: bit %d is flipped, and the error is %v", name, i, err)
			}
			whole[i/8] ^= 1 << (i % 8)
		}
	}
}
