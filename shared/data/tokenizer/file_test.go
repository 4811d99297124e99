package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/digest"
	"bitnet1/shared/pythontest"
)

var update = flag.Bool("update", false, "write the expected tokens of testdata anew, with Python's package tokenizers")

// object is JSON made in tests.
type object = map[string]any

var (
	byteLevel  = object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	asBytes    = object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
	digits     = object{"type": "Digits", "individual_digits": true}
	endOfTexts = []any{added(endOfTextBytes, 256, true, false)}
)

func added(content string, id int, special, normalized bool) object {
	return object{"id": id, "content": content, "special": special, "normalized": normalized, "single_word": false,
		"lstrip": false, "rstrip": false}
}

func sequence(steps ...any) object { return object{"type": "Sequence", "pretokenizers": steps} }

func split(regex string) object {
	return object{"type": "Split", "pattern": object{"Regex": regex}, "behavior": "Isolated", "invert": false}
}

// fileOf makes a tokenizer.json of these merges, each of two texts as bytes. The ids of bytes and of what merges make
// follow each other in an order of the test's own.
func fileOf(merges [][2]string, preTokenizer, normalizer any, added []any, ignoreMerges bool) object {
	vocab, given := object{}, []any{}
	for b := range 256 {
		vocab[visible([]byte{byte(b)})] = (b*7 + 3) % 256
	}
	for i, a := range added {
		if vocab[a.(object)["content"].(string)] == nil {
			a = maps.Clone(a.(object))
			a.(object)["id"] = 256 + i
			vocab[a.(object)["content"].(string)] = 256 + i
		}
		added[i] = a
	}
	next := 256 + len(added)
	for _, m := range merges {
		l, r := visible([]byte(m[0])), visible([]byte(m[1]))
		if vocab[l+r] == nil {
			vocab[l+r] = next
			next++
		}
		given = append(given, []any{l, r})
	}
	return object{"version": "1.0", "truncation": nil, "padding": nil, "normalizer": normalizer, "added_tokens": added,
		"pre_tokenizer": preTokenizer, "post_processor": nil, "decoder": asBytes,
		"model": object{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil,
			"end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignoreMerges,
			"vocab": vocab, "merges": given}}
}

func encodeJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, file []byte) Tokenizer {
	t.Helper()
	tok, err := Parse(file)
	if err != nil {
		t.Fatalf("%v: %.300s", err, file)
	}
	return tok
}

// randomMerges are merges over few letters. Some make what another one makes, and some never come about.
func randomMerges(random *rand.Rand, alphabet string, n int) (merges [][2]string) {
	var tokens []string
	for _, b := range []byte(alphabet) {
		tokens = append(tokens, string([]byte{b}))
	}
	seen := map[[2]string]bool{}
	for range n {
		m := [2]string{tokens[random.IntN(len(tokens))], tokens[random.IntN(len(tokens))]}
		if seen[m] || len(m[0]+m[1]) > 12 {
			continue
		}
		seen[m] = true
		merges = append(merges, m)
		if !slices.Contains(tokens, m[0]+m[1]) {
			tokens = append(tokens, m[0]+m[1])
		}
	}
	return merges
}

// proper leaves out merges of a token that only a later merge makes: Parse refuses a file with one.
func parseProper(t *testing.T, f object) (Tokenizer, []byte) {
	t.Helper()
	late := regexp.MustCompile(`^tokenizer.json: merge (\d+) takes the token`)
	model := f["model"].(object)
	for {
		file := encodeJSON(t, f)
		tok, err := Parse(file)
		if err == nil {
			return tok, file
		}
		found := late.FindStringSubmatch(err.Error())
		if found == nil {
			t.Fatalf("%v: %.300s", err, file)
		}
		var i int
		fmt.Sscan(found[1], &i)
		model["merges"] = slices.Delete(slices.Clone(model["merges"].([]any)), i, i+1)
	}
}

// tokenized is what the package tokenizers makes of texts, with each of the files.
func tokenized(t *testing.T, files [][]byte, texts []string) (ids [][][]uint32) {
	t.Helper()
	python := pythontest.Interpreter(t, "tokenizers")
	given := object{"texts": texts}
	var list []string
	for _, f := range files {
		list = append(list, string(f))
	}
	given["files"] = list
	run := exec.Command(python, "-c", encodedIn)
	run.Stdin, run.Stderr = bytes.NewReader(encodeJSON(t, given)), os.Stderr
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var one [][]uint32
		switch err := d.Decode(&[]any{&one}); {
		case errors.Is(err, io.EOF):
			return ids
		case err != nil:
			t.Fatal(err)
		}
		ids = append(ids, one)
	}
}

// compareFiles compares with the package tokenizers.
func compareFiles(t *testing.T, files [][]byte, texts []string) {
	t.Helper()
	for i, want := range tokenized(t, files, texts) {
		tok := parse(t, files[i])
		wrong := 0
		for k, text := range texts {
			if got := tok.Encode(nil, []byte(text)); !slices.Equal(got, want[k]) && wrong < 5 {
				wrong++
				t.Errorf("file %d: %+.80q has the tokens %v, want %v (%.600s)", i, text, got, want[k], files[i])
			}
		}
	}
}

// hostileTexts are short texts of characters that patterns and normalization tell apart, and all characters.
func hostileTexts(t testing.TB) []string {
	texts := append([]string{"", "x !\n/y\n//\r/ z/\n", " 12 345  6\n7", string(prose(t)[:5000])}, awkward...)
	random := rand.New(rand.NewPCG(11, 12))
	atoms := append(strings.Split(" \n\r\t'abstSTrev1!/·é½ſ٠日Ⅷ", ""), "'s", "'ſ", "'LL", "<|endoftext|>",
		"<tool>", "<tool>>", "1!", "!/",
		"e\u0301", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0344", "\u0327\u0301", "\u2126", "\ufb03", "\u1e0a\u0323", "👍🏽",
		"\U00010d41", "\U00011de3", "\u1c89")
	for range 400 {
		var b strings.Builder
		for range random.IntN(30) {
			b.WriteString(atoms[random.IntN(len(atoms))])
		}
		texts = append(texts, b.String())
	}
	for _, n := range []int{29, 31, 70} { // marks without end, in a wrong order
		texts = append(texts, "e"+strings.Repeat("\u0301\u0327", n)+"x", strings.Repeat("\u0344", n))
	}
	var b strings.Builder
	for r := rune(0); r < 0x32000; r++ {
		if r >= 0xd800 && r < 0xe000 || (r < 0x3400 && r%2 != 0 || r > 0x3400) && r%11 != 0 {
			continue
		}
		fmt.Fprintf(&b, "%ca %c%c B%c1'S%cA\n", r, r, r, r, r)
		if b.Len() > 2000 {
			texts = append(texts, b.String())
			b.Reset()
		}
	}
	return texts
}

// TestFileAgrees compares files of every kind that is read with the package tokenizers.
func TestFileAgrees(t *testing.T) {
	random := rand.New(rand.NewPCG(21, 22))
	nfc := object{"type": "NFC"}
	tool := func() []any {
		return []any{added(endOfTextBytes, 0, true, true), added("<tool>", 0, false, false), added("<tool>>", 0, false, true),
			added("1!", 0, true, false), added("!/", 0, false, false), added("e\u0301", 0, false, true),
			added("\t", 0, false, true)}
	}
	kinds := []object{byteLevel, asBytes, sequence(digits, byteLevel)}
	for _, regex := range patterns {
		kinds = append(kinds, sequence(split(regex), asBytes))
	}
	var files [][]byte
	for _, kind := range kinds {
		merges := randomMerges(random, "abst e' \n1·\xc3\xa9\xcc\x81", 300)
		for _, f := range []object{
			fileOf(merges, kind, nil, slices.Clone(endOfTexts), false),
			fileOf(merges, kind, nfc, tool(), kind["type"] == "Sequence"), // a special token is no piece of these
		} {
			_, file := parseProper(t, f)
			files = append(files, file)
		}
	}
	compareFiles(t, files, hostileTexts(t))
}

// TestMergesAgree compares random merges with the package tokenizers.
func TestMergesAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(31, 32))
	var files [][]byte
	for i := range 120 {
		merges := randomMerges(random, "abcd"[:2+i%3], 10+random.IntN(60))
		_, file := parseProper(t, fileOf(merges, asBytes, nil, slices.Clone(endOfTexts), i%2 == 0))
		files = append(files, file)
	}
	var texts []string
	for range 300 {
		var b strings.Builder
		for range 2 + random.IntN(40) {
			b.WriteByte("abcd"[random.IntN(2+random.IntN(3))])
		}
		texts = append(texts, b.String())
	}
	compareFiles(t, files, texts)
}

// TestImportedIsBuiltIn: a built-in vocabulary that comes from a file gives the same tokens.
func TestImportedIsBuiltIn(t *testing.T) {
	for _, name := range Names() {
		built := open(t, name)
		file, err := HuggingFace(built)
		if err != nil {
			t.Fatal(err)
		}
		tok := parse(t, file)
		if tok.Vocab() != built.Vocab() || tok.EndOfText() != built.EndOfText() {
			t.Errorf("%s: %d ids, end of text %d", name, tok.Vocab(), tok.EndOfText())
		}
		for _, text := range append(append([]string{string(prose(t))}, awkward...), invalid...) {
			if got := tok.Encode(nil, []byte(text)); !slices.Equal(got, built.Encode(nil, []byte(text))) {
				t.Errorf("%s: %.60q has other tokens: %.20v", name, text, got)
			}
		}
		ids := append(tok.Encode(nil, []byte("a b")), tok.EndOfText(), uint32(tok.Vocab()))
		if got := string(tok.Decode(nil, ids)); got != "a b<|endoftext|>\uFFFD" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// golden are the tokens that the package tokenizers (0.23) gives to texts.
const golden = "testdata/tokens.json"

// TestFileGolden compares with what the package tokenizers gave, so that no Python is needed. -update asks it again.
func TestFileGolden(t *testing.T) {
	files := map[string][]byte{}
	var names []string
	random := rand.New(rand.NewPCG(41, 42))
	kinds := map[string]object{"bytes": asBytes, "gpt2": byteLevel, "digits": sequence(digits, byteLevel)}
	for _, regex := range patterns {
		kinds[regex] = sequence(split(regex), asBytes)
	}
	for i, name := range slices.Sorted(maps.Keys(kinds)) {
		var normalizer any
		if i%2 == 1 {
			normalizer = object{"type": "NFC"}
		}
		_, files[name] = parseProper(t, fileOf(randomMerges(random, "abst e' \n1", 200), kinds[name], normalizer,
			[]any{added(endOfTextBytes, 0, true, true), added("<tool>", 0, false, false)}, i%3 == 0))
		names = append(names, name)
	}
	texts := slices.Concat(awkward, []string{"12345 6", "'ſ'S", "e\u0301<tool>e<|endoftext|>", "a 1",
		"stat ease tests bat\n"})
	if *update {
		var list [][]byte
		for _, name := range names {
			list = append(list, files[name])
		}
		want := map[string]map[string][]uint32{}
		for i, ids := range tokenized(t, list, texts) {
			want[names[i]] = map[string][]uint32{}
			for k, text := range texts {
				want[names[i]][text] = ids[k]
			}
		}
		if err := os.WriteFile(golden, encodeJSON(t, want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]map[string][]uint32
	if err := json.Unmarshal(data, &want); err != nil || len(want) != len(kinds) {
		t.Fatalf("%d kinds of files, want %d: %v", len(want), len(kinds), err)
	}
	for name, tokens := range want {
		tok := parse(t, files[name])
		for text, ids := range tokens {
			if got := tok.Encode(nil, []byte(text)); !slices.Equal(got, ids) {
				t.Errorf("%s: %+.60q has the tokens %v, want %v", name, text, got, ids)
			}
		}
	}
}

// TestFileRoundTrip: without a normalizer, decoding gives the same bytes, valid or not.
func TestFileRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(51, 52))
	file := encodeJSON(t, fileOf(randomMerges(random, "abst e' \n1", 200)[:1], byteLevel, nil,
		[]any{added(endOfTextBytes, 0, true, true), added("<tool>", 0, false, true)}, true))
	tok := parse(t, file)
	for _, s := range slices.Concat(awkward, invalid, []string{"<tool>\xff<tool>", "!!!!", endOfTextBytes}) {
		ids := tok.Encode(nil, []byte(s))
		if got := tok.Decode(nil, ids); string(got) != s || slices.Contains(ids, tok.EndOfText()) {
			t.Errorf("%q came back as %q, by %v", s, got, ids)
		}
	}
	if want := FilePrefix + digest.Bytes(file)[:12]; tok.Name() != want || !bytes.Equal(File(tok), file) {
		t.Errorf("%s is called %s", want, tok.Name())
	}
}

// TestTokenZero: the token of rank 0 may follow itself.
func TestTokenZero(t *testing.T) {
	tok := parse(t, encodeJSON(t, fileOf(nil, asBytes, nil, slices.Clone(endOfTexts), false))).(*imported)
	first := tok.merges.vocabulary.token(0)
	text := bytes.Repeat(first, 40)
	if got := tok.Encode(nil, text); len(got) != 40 || !bytes.Equal(tok.Decode(nil, got), text) {
		t.Errorf("%v", got)
	}
}

// TestOpen: a file has the name that files give it, or the error names both.
func TestOpen(t *testing.T) {
	file := encodeJSON(t, fileOf(nil, byteLevel, nil, slices.Clone(endOfTexts), false))
	name := FileName(digest.Bytes(file))
	if tok, err := Open(name, file); err != nil || tok.Name() != name {
		t.Errorf("%v, %v", tok, err)
	}
	if tok, err := Open("bytes", nil); err != nil || tok.Name() != "bytes" || File(tok) != nil {
		t.Errorf("%v, %v", tok, err)
	}
	if _, err := Open("bpe-0123456789ab", file); err == nil || !strings.Contains(err.Error(), name) ||
		!strings.Contains(err.Error(), "bpe-0123456789ab") {
		t.Errorf("error %v does not name both", err)
	}
	if _, err := New(name); err == nil || !strings.Contains(err.Error(), "tokenizer.json") {
		t.Errorf("error %v", err)
	}
}

// TestFileRefused: what would be read wrongly is refused, and the error names it.
func TestFileRefused(t *testing.T) {
	model := func(f object) object { return f["model"].(object) }
	for want, change := range map[string]func(f object){
		"model is WordPiece":          func(f object) { model(f)["type"] = "WordPiece" },
		"dropout 0.1":                 func(f object) { model(f)["dropout"] = 0.1 },
		"end_of_word_suffix":          func(f object) { model(f)["end_of_word_suffix"] = "</w>" },
		"unknown field \"beam\"":      func(f object) { model(f)["beam"] = 4 },
		"no vocabulary":               func(f object) { model(f)["vocab"] = object{} },
		"byte 0x21":                   func(f object) { delete(model(f)["vocab"].(object), "!") },
		"same id 3":                   func(f object) { model(f)["vocab"].(object)["!"] = 3 },
		"has id -1":                   func(f object) { model(f)["vocab"].(object)["x!"] = -1 },
		"has id 99999999":             func(f object) { model(f)["vocab"].(object)["x!"] = 99999999 },
		`"zz" is not in the voc`:      func(f object) { model(f)["merges"] = []any{"z z"} },
		"does not name two tokens":    func(f object) { model(f)["merges"] = []any{"abc"} },
		"does not name two":           func(f object) { model(f)["merges"] = []any{[]any{"a"}} },
		"merge 0 takes the token":     func(f object) { model(f)["merges"] = []any{"ab c", "a b"} },
		"normalizer Lowercase":        func(f object) { f["normalizer"] = object{"type": "Lowercase"} },
		"does not end with ByteLevel": func(f object) { f["pre_tokenizer"] = object{"type": "Metaspace"} },
		"end with ByteLevel":          func(f object) { f["pre_tokenizer"] = nil },
		"add_prefix_space": func(f object) {
			f["pre_tokenizer"] = object{"type": "ByteLevel", "add_prefix_space": true}
		},
		"is not among those":    func(f object) { f["pre_tokenizer"] = sequence(split(`\S+`), asBytes) },
		"only ByteLevel, Split": func(f object) { f["pre_tokenizer"] = sequence(digits, split("a"), asBytes) },
		"keeps digits together": func(f object) { f["pre_tokenizer"] = sequence(object{"type": "Digits"}, byteLevel) },
		"has behavior": func(f object) {
			f["pre_tokenizer"].(object)["pretokenizers"].([]any)[0].(object)["invert"] = true
		},
		"decoder is WordPiece":    func(f object) { f["decoder"] = object{"type": "WordPiece"} },
		"none of its special":     func(f object) { f["added_tokens"] = []any{} },
		"would give it 259":       func(f object) { f["added_tokens"] = []any{added("<new>", 300, true, false)} },
		"found by what is around": func(f object) { f["added_tokens"].([]any)[1].(object)["rstrip"] = true },
		"is there twice": func(f object) {
			f["added_tokens"] = []any{added("ab", 257, true, false), added("ab", 257, true, false)}
		},
		"token of ordinary text":     func(f object) { f["added_tokens"] = []any{added("ab", 257, true, false)} },
		"cannot unmarshal":           func(f object) { f["added_tokens"] = 5 },
		"unknown field \"surprise\"": func(f object) { f["surprise"] = 5 },
	} {
		f := fileOf([][2]string{{"a", "b"}, {"ab", "c"}}, sequence(split(patterns["gpt2"]), asBytes), nil,
			slices.Clone(endOfTexts), false)
		model(f)["vocab"] = maps.Clone(model(f)["vocab"].(object))
		f["added_tokens"] = []any{added(endOfTextBytes, 256, true, false), added("abc", 258, false, false)}
		if _, err := Parse(encodeJSON(t, f)); err != nil {
			t.Fatal(err)
		}
		change(f)
		if _, err := Parse(encodeJSON(t, f)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q: %v", want, err)
		}
	}
	for _, file := range []string{"{}", "[]", "null", `{"model":{}} {}`} {
		if _, err := Parse([]byte(file)); err == nil {
			t.Errorf("%q is a tokenizer", file)
		}
	}
}

// TestOtherKindsRefused: the error about a tokenizer of another kind names the kind, and no field that only the other
// kind has. The files are what the package tokenizers writes, with less in their vocabularies.
func TestOtherKindsRefused(t *testing.T) {
	const metaspace = `{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}`
	for file, want := range map[string]string{
		`{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Whitespace"},
			"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
			"max_input_chars_per_word":100,"vocab":{"[UNK]":0,"a":1}}}`: "the model is WordPiece: only byte-level BPE",
		`{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":null,
			"model":{"type":"Unigram","unk_id":null,"vocab":[["a",-1.5],["b",-2.5]],
			"byte_fallback":false}}`: "the model is Unigram: only byte-level BPE",
		`{"version":"1.0","added_tokens":[],"normalizer":{"type":"Prepend","prepend":"▁"},"pre_tokenizer":null,
			"decoder":{"type":"Fuse"},"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0},
			"merges":[]}}`: "does not end with ByteLevel: only byte-level BPE",
		`{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":` + metaspace + `,"decoder":` + metaspace + `,
			"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`: "does not end with ByteLevel: only byte-level BPE",
		``:                      "truncated",
		`{"version":"1.0","mo`:  "truncated",
		`{"version":"1.0",,}`:   "invalid character",
		`{"version":"1.0"} {`:   "something follows",
		`{"model":{"vocab":5}}`: "no vocabulary",
	} {
		if _, err := Parse([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", file, err, want)
		}
	}
}

// FuzzParse: no bytes crash the reader, and a file that is read encodes without loss unless it normalizes.
func FuzzParse(f *testing.F) {
	f.Add(encodeJSON(f, fileOf([][2]string{{"a", "b"}, {"ab", "c"}}, byteLevel, nil,
		slices.Clone(endOfTexts), true)), []byte("abc"))
	f.Fuzz(func(t *testing.T, file, text []byte) {
		var tok Tokenizer
		var err error
		alloctest.AtMost(t, 1<<20+1024*int64(len(file)), func() { tok, err = Parse(file) })
		if err != nil {
			return
		}
		ids := tok.Encode(nil, text)
		if got := tok.Decode(nil, ids); !tok.(*imported).nfc && !bytes.Equal(got, text) {
			t.Fatalf("%q came back as %q", text, got)
		}
	})
}

// TestSplitDigits: each digit is a piece, and the pattern sees no further than the next digit.
func TestSplitDigits(t *testing.T) {
	c, text := newClasses(nil), []byte("a  12 b  c 3's")
	var got []string
	for i := 0; i < len(text); {
		end := c.splitDigits(text, i)
		got = append(got, string(text[i:end]))
		i = end
	}
	if want := []string{"a", "  ", "1", "2", " b", " ", " c", " ", "3", "'s"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
