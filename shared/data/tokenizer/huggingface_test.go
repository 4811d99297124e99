package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/pythontest"
)

// encodedIn prints, as JSON, the tokens and the decoded text that tokenizers of tokenizer.json give to each text.
const encodedIn = `
import json, sys
from tokenizers import Tokenizer
given = json.load(sys.stdin)
for file in given["files"]:
    t = Tokenizer.from_str(file)
    t.encode_special_tokens = True
    ids = [t.encode(text).ids for text in given["texts"]]
    print(json.dumps([ids, [t.decode(i, skip_special_tokens=False) for i in ids], t.token_to_id("<|endoftext|>")]))
`

// The package tokenizers gives every text the same tokens by the file that HuggingFace writes.
func TestHuggingFace(t *testing.T) {
	python := pythontest.Interpreter(t, "tokenizers")
	texts := append([]string{"", "a<|endoftext|>b", "x !\n/y\n//\r/ z/\n", string(prose(t)[:20000])}, awkward...)
	random := rand.New(rand.NewPCG(3, 9))
	for range 200 { // any characters, and the alphabets in which most pieces end at once
		var b strings.Builder
		for range 40 {
			switch r := rune(random.IntN(0x110000)); {
			case random.IntN(3) == 0:
				b.WriteByte(" \n\r\t'a1!s/"[random.IntN(10)])
			case random.IntN(2) == 0:
				b.WriteRune(rune(random.IntN(0x3000)))
			case r < 0xd800 || r > 0xdfff: // no surrogates, which are no characters
				b.WriteRune(r)
			}
		}
		texts = append(texts, b.String())
	}
	given := struct {
		Files []string `json:"files"`
		Texts []string `json:"texts"`
	}{Texts: texts}
	for _, name := range Names() {
		file, err := HuggingFace(open(t, name))
		if err != nil {
			t.Fatal(err)
		}
		given.Files = append(given.Files, string(file))
	}
	input, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command(python, "-c", encodedIn)
	run.Stdin, run.Stderr = bytes.NewReader(input), os.Stderr
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(strings.Lines(string(out)))
	for i, name := range Names() {
		tok := open(t, name)
		var ids [][]uint32
		var decoded []string
		var end uint32
		if err := json.Unmarshal([]byte(lines[i]), &[]any{&ids, &decoded, &end}); err != nil || end != tok.EndOfText() {
			t.Fatalf("%s: end of text %d, %v", name, end, err)
		}
		for k, text := range texts {
			if want := tok.Encode(nil, []byte(text)); !slices.Equal(ids[k], want) || decoded[k] != text {
				t.Errorf("%s: %.60q has the tokens %v, want %v; they are %.60q", name, text, ids[k], want, decoded[k])
			}
		}
	}
}

func TestHuggingFaceHasNoSymbols(t *testing.T) {
	if _, err := HuggingFace(open(t, "symbols-64")); !errors.Is(err, ErrNoHuggingFace) {
		t.Errorf("error %v", err)
	}
}
