package tokenizer

import (
	"bytes"
	"go/build"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkoukk/tiktoken-go"
	loader "github.com/pkoukk/tiktoken-go-loader"
)

func open(t testing.TB, name string) Tokenizer {
	t.Helper()
	tok, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// prose is a book that every Go installation has.
func prose(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(build.Default.GOROOT, "src", "testdata", "Isaac.Newton-Opticks.txt"))
	if err != nil {
		t.Skipf("the Go installation has no sample text: %v", err)
	}
	return text
}

func TestNewRefusesUnknownName(t *testing.T) {
	if _, err := New("llama"); err == nil || !strings.Contains(err.Error(), "gpt2") {
		t.Fatalf("error %v does not name the choices", err)
	}
}

func TestVocabulary(t *testing.T) {
	for name, want := range map[string]int{"gpt2": 50257, "bytes": 257} {
		tok := open(t, name)
		if tok.Name() != name || tok.Vocab() != want || int(tok.EndOfText()) != want-1 {
			t.Errorf("%s: name %s, vocabulary %d, end of text %d", name, tok.Name(), tok.Vocab(), tok.EndOfText())
		}
	}
}

// The ids below are published examples of GPT-2's encoding.
func TestKnownTokens(t *testing.T) {
	tok := open(t, "gpt2")
	for text, want := range map[string][]uint32{
		"":              nil,
		"Hello world":   {15496, 995},
		"hello world":   {31373, 995},
		"Hello, world!": {15496, 11, 995, 0},
		"<|endoftext|>": {27, 91, 437, 1659, 5239, 91, 29},
	} {
		if got := tok.Encode(nil, []byte(text)); !equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestDecodeOfSpecialAndUnknownIDs(t *testing.T) {
	for _, name := range Names() {
		tok := open(t, name)
		ids := append(tok.Encode(nil, []byte("a")), tok.EndOfText(), uint32(tok.Vocab()), 1<<32-1)
		if got := string(tok.Decode(nil, ids)); got != "a<|endoftext|>\uFFFD\uFFFD" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func equal(a, b []uint32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// awkward are texts at the edges of the pattern and of UTF-8.
var awkward = []string{
	" ", "  ", "\n", " \n ", "a  b", "a \n\n b", "a\n", "\t\ta", "a\u00a0b", "\u00a0\u00a0 x", "\x7f\u0085", "a\u0085\u0085b", "\u2003 x\u3000y",
	"it's we're I'll they've I'm he'd don't", "'s't", "'S 'T", " 's", "''s", "'r 'l 'v '", "3rd 1½ Ⅷ ②", "x²", "naïve café", "日本語のテキスト", "Привет, мир",
	"👍🏽👨‍👩‍👧", "e\u0301", "!!!???...", " !a 1!", "a_b-c", "\u200b", "\ufeffx", "\x1c\x1d x", "ﷺ", "\u1680a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	strings.Repeat("ab", 300), strings.Repeat(" ", 200), strings.Repeat(" ", 200) + "x", strings.Repeat("=-", 100),
}

var invalid = []string{"\xff", "a\xffb", "\xe2\x82", " \xe2\x82 x", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "caf\xe9 au lait", "\x80\x80\x80", "\xf0\x9f\x91 \xf0\x9f"}

func TestRoundTrip(t *testing.T) {
	for _, name := range Names() {
		tok := open(t, name)
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		for _, s := range append(append([]string{string(all), string(prose(t))}, awkward...), invalid...) {
			ids := tok.Encode(nil, []byte(s))
			if got := tok.Decode(nil, ids); string(got) != s {
				t.Errorf("%s: %.40q came back as %.40q", name, s, got)
			}
		}
	}
}

// TestAgreesWithTiktoken compares with an independent implementation over the same ranks, on valid UTF-8 only: it
// replaces invalid bytes.
func TestAgreesWithTiktoken(t *testing.T) {
	tok, reference := open(t, "gpt2"), tiktokenEncoder(t)
	texts := append([]string(nil), awkward...)
	paragraphs := strings.SplitAfter(string(prose(t)), "\r\n\r\n")
	if len(paragraphs) < 2 {
		paragraphs = strings.SplitAfter(string(prose(t)), "\n\n")
	}
	texts = append(texts, paragraphs...)
	for _, s := range texts {
		compare(t, tok, reference, s)
	}
	// Every Unicode character in three surroundings, a few hundred at a time.
	var b strings.Builder
	for r := rune(0); r <= 0x2ffff; r++ {
		if r >= 0xd800 && r < 0xe000 {
			continue
		}
		if testing.Short() && r%7 != 0 {
			continue
		}
		b.WriteRune(r)
		b.WriteString("a ")
		b.WriteRune(r)
		b.WriteRune(r)
		if r%256 == 0 {
			compare(t, tok, reference, b.String())
			b.Reset()
		}
	}
}

func tiktokenEncoder(t testing.TB) *tiktoken.Tiktoken {
	t.Helper()
	tiktoken.SetBpeLoader(loader.NewOfflineLoader())
	reference, err := tiktoken.GetEncoding("r50k_base")
	if err != nil {
		t.Fatal(err)
	}
	return reference
}

func compare(t *testing.T, tok Tokenizer, reference *tiktoken.Tiktoken, s string) {
	t.Helper()
	got := tok.Encode(nil, []byte(s))
	want := reference.EncodeOrdinary(s)
	same := len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		same = int(got[i]) == want[i]
	}
	if !same {
		t.Errorf("%.60q: %v, want %v", s, got[:min(len(got), 20)], want[:min(len(want), 20)])
	}
}

func TestConcurrentUse(t *testing.T) {
	tok, text := open(t, "gpt2"), prose(t)[:50_000]
	want := tok.Encode(nil, text)
	done := make(chan bool)
	for range 4 {
		go func() { done <- equal(tok.Encode(nil, text), want) }()
	}
	for range 4 {
		if !<-done {
			t.Error("concurrent encodings differ")
		}
	}
}

// TestLongPiece takes minutes where merging is quadratic.
func TestLongPiece(t *testing.T) {
	tok := open(t, "gpt2")
	text := bytes.Repeat([]byte("xqzjvwkyh"), 60_000)
	if got := tok.Decode(nil, tok.Encode(nil, text)); !bytes.Equal(got, text) {
		t.Error("a long piece does not round trip")
	}
}

func FuzzRoundTrip(f *testing.F) {
	for _, s := range append(awkward, invalid...) {
		f.Add([]byte(s))
	}
	g, b := open(f, "gpt2"), open(f, "bytes")
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, tok := range []Tokenizer{g, b} {
			ids := tok.Encode(nil, text)
			for _, id := range ids {
				if id >= tok.EndOfText() {
					t.Fatalf("%s: encoded to special id %d", tok.Name(), id)
				}
			}
			if got := tok.Decode(nil, ids); !bytes.Equal(got, text) {
				t.Fatalf("%s: %q came back as %q", tok.Name(), text, got)
			}
		}
	})
}

func FuzzAgreesWithTiktoken(f *testing.F) {
	for _, s := range awkward {
		f.Add(s)
	}
	tok, reference := open(f, "gpt2"), tiktokenEncoder(f)
	f.Fuzz(func(t *testing.T, s string) {
		compare(t, tok, reference, strings.ToValidUTF8(s, "?"))
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range Names() {
		b.Run(name, func(b *testing.B) {
			tok, text := open(b, name), prose(b)
			dst := tok.Encode(nil, text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				dst = tok.Encode(dst[:0], text)
			}
		})
	}
}
