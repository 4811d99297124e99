package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"go/build"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/pkoukk/tiktoken-go"
	loader "github.com/pkoukk/tiktoken-go-loader"
	"golang.org/x/sys/unix"
)

// made are the tokenizers that tests have asked for: making one takes longer than most tests.
var made = struct {
	sync.Mutex
	byName map[string]Tokenizer
}{byName: map[string]Tokenizer{}}

func open(t testing.TB, name string) Tokenizer {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.byName[name] == nil {
		tok, err := New(name)
		if err != nil {
			t.Fatal(err)
		}
		made.byName[name] = tok
	}
	return made.byName[name]
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
	for name, want := range map[string]int{"gpt2": 50257, "cl100k": 100258, "o200k": 200000, "bytes": 257} {
		tok := open(t, name)
		if tok.Name() != name || tok.Vocab() != want || int(tok.EndOfText()) != want-1 {
			t.Errorf("%s: name %s, vocabulary %d, end of text %d", name, tok.Name(), tok.Vocab(), tok.EndOfText())
		}
	}
}

// The ids below are published examples of each encoding.
func TestKnownTokens(t *testing.T) {
	for name, examples := range map[string]map[string][]uint32{
		"gpt2": {
			"":              nil,
			"Hello world":   {15496, 995},
			"hello world":   {31373, 995},
			"Hello, world!": {15496, 11, 995, 0},
			"<|endoftext|>": {27, 91, 437, 1659, 5239, 91, 29},
		},
		"cl100k": {"hello world": {15339, 1917}, "tiktoken is great!": {83, 1609, 5963, 374, 2294, 0}},
		"o200k":  {"hello world": {24912, 2375}},
	} {
		tok := open(t, name)
		for text, want := range examples {
			if got := tok.Encode(nil, []byte(text)); !slices.Equal(got, want) {
				t.Errorf("%s: %q: %v, want %v", name, text, got, want)
			}
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

// awkward are texts at the edges of the pattern and of UTF-8.
var awkward = []string{
	" ", "  ", "\n", " \n ", "a  b", "a \n\n b", "a\n", "\t\ta", "a\u00a0b", "\u00a0\u00a0 x", "\x7f\u0085",
	"a\u0085\u0085b", "\u2003 x\u3000y",
	"it's we're I'll they've I'm he'd don't", "'s't", "'S 'T", " 's", "''s", "'r 'l 'v '", "3rd 1½ Ⅷ ②", "x²",
	"naïve café", "日本語のテキスト", "Привет, мир",
	"👍🏽👨‍👩‍👧", "e\u0301", "!!!???...", " !a 1!", "a_b-c", "\u200b", "\ufeffx", "\x1c\x1d x", "ﷺ", "\u1680a",
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	strings.Repeat("ab", 300), strings.Repeat(" ", 200), strings.Repeat(" ", 200) + "x", strings.Repeat("=-", 100),
}

var invalid = []string{"\xff", "a\xffb", "\xe2\x82", " \xe2\x82 x", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
	"caf\xe9 au lait", "\x80\x80\x80", "\xf0\x9f\x91 \xf0\x9f"}

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

// references are the names of our vocabularies in an independent implementation over the same ranks.
var references = map[string]string{"gpt2": "r50k_base", "cl100k": "cl100k_base", "o200k": "o200k_base"}

func tiktokenEncoder(t testing.TB, name string) *tiktoken.Tiktoken {
	t.Helper()
	tiktoken.SetBpeLoader(loader.NewOfflineLoader())
	reference, err := tiktoken.GetEncoding(references[name])
	if err != nil {
		t.Fatal(err)
	}
	return reference
}

// compare compares with the independent implementation, on valid UTF-8 only: it replaces invalid bytes.
func compare(t *testing.T, tok Tokenizer, reference *tiktoken.Tiktoken, s string) {
	t.Helper()
	got := tok.Encode(nil, []byte(s))
	want := reference.EncodeOrdinary(s)
	same := len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		same = int(got[i]) == want[i]
	}
	if !same {
		t.Errorf("%s: %.60q: %v, want %v", tok.Name(), s, got[:min(len(got), 20)], want[:min(len(want), 20)])
	}
}

func TestAgreesWithTiktoken(t *testing.T) {
	texts := append([]string(nil), awkward...)
	paragraphs := strings.SplitAfter(string(prose(t)), "\r\n\r\n")
	if len(paragraphs) < 2 {
		paragraphs = strings.SplitAfter(string(prose(t)), "\n\n")
	}
	texts = append(texts, paragraphs...)
	for name := range references {
		tok, reference := open(t, name), tiktokenEncoder(t, name)
		for _, s := range texts {
			compare(t, tok, reference, s)
		}
	}
}

// TestEveryCharacter compares every Unicode character in several surroundings, some hundreds at a time.
func TestEveryCharacter(t *testing.T) {
	for name := range references {
		tok, reference := open(t, name), tiktokenEncoder(t, name)
		var b strings.Builder
		for r := rune(0); r <= 0x2ffff; r++ {
			if r >= 0xd800 && r < 0xe000 || (testing.Short() || r > 0x3000) && r%7 != 0 {
				continue
			}
			fmt.Fprintf(&b, "%ca %c%c B%cb'S%cA\n", r, r, r, r, r)
			if r%256 <= 6 {
				compare(t, tok, reference, b.String())
				b.Reset()
			}
		}
	}
}

// TestRandomTexts draws texts from characters that the patterns tell apart.
func TestRandomTexts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	atoms := []string{"a", "b", "A", "Z", "\u00e9", "\u01c5", "\u02b0", "\u3042", "\u65e5", "\u0301", "\u0903", "1",
		"\u00bd", "\u2167", " ", " ", "\n", "\r", "\t",
		"\u00a0", "\u2003", "\u0085", "'", "'s", "'LL", "'rE", "\u2019", "!", "/", "-", "\u20ac", "\U0001f44d",
		"\u200d", "\ufe0f", "\U00010400", "\U00010428", "\x00", "\x7f", "\u017f", "'\u017f"}
	for name := range references {
		tok, reference := open(t, name), tiktokenEncoder(t, name)
		for range 3000 {
			var b strings.Builder
			for range random.IntN(40) {
				b.WriteString(atoms[random.IntN(len(atoms))])
			}
			compare(t, tok, reference, b.String())
		}
	}
}

// mergeSlowly is byte pair encoding by its definition.
func (b *bpe) mergeSlowly(piece []byte) []uint32 {
	var ends []int
	for i := range piece {
		ends = append(ends, i+1)
	}
	start := func(i int) int {
		if i == 0 {
			return 0
		}
		return ends[i-1]
	}
	for {
		best, at := none, -1
		for i := 0; i+1 < len(ends); i++ {
			if id, ok := b.pieces.find(piece[start(i):ends[i+1]]); ok && id < best {
				best, at = id, i
			}
		}
		if at < 0 {
			break
		}
		ends = slices.Delete(ends, at, at+1)
	}
	var ids []uint32
	for i, end := range ends {
		id, _ := b.pieces.find(piece[start(i):end])
		ids = append(ids, id)
	}
	return ids
}

// TestMergesAsDefined encodes random pieces of bytes, of few letters, and of tokens put together, and compares with
// merging step by step.
func TestMergesAsDefined(t *testing.T) {
	for name := range references {
		tok := open(t, name).(*bpe)
		random, p := rand.New(rand.NewPCG(3, 4)), new(path)
		for i := range 30000 {
			var piece []byte
			for n := 2 + random.IntN(24); len(piece) < n; {
				switch i % 4 {
				case 0:
					piece = append(piece, byte(random.Uint32()))
				case 1:
					piece = append(piece, "aeinrst"[random.IntN(7)])
				case 2:
					piece = append(piece, tok.tokens.token(uint32(random.IntN(tok.tokens.size())))...)
				default:
					piece = append(piece, tok.tokens.token(uint32(random.IntN(3000)))...)
				}
			}
			got, want := tok.merges.encode(nil, piece, p), tok.mergeSlowly(piece)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %q: %v, want %v", name, piece, got, want)
			}
		}
	}
}

// TestEveryToken encodes each token as a piece of its own and decodes it.
func TestEveryToken(t *testing.T) {
	for name := range references {
		tok := open(t, name).(*bpe)
		unmade, p := 0, new(path)
		for id := range uint32(tok.tokens.size()) {
			token := tok.tokens.token(id)
			if got, ok := tok.pieces.find(token); !ok || got != id ||
				string(tok.Decode(nil, []uint32{id})) != string(token) {
				t.Errorf("%s: token %d, %q, is found as %d", name, id, token, got)
			}
			if !tok.merges.made(id) {
				unmade++
			} else if got := tok.merges.encode(nil, token, p); !slices.Equal(got, []uint32{id}) {
				t.Errorf("%s: %q merges to %v instead of %d", name, token, got, id)
			}
		}
		t.Logf("%s: %d tokens are never made by merging", name, unmade)
	}
}

func TestConcurrentUse(t *testing.T) {
	tok, text := open(t, "gpt2"), prose(t)[:50_000]
	want := tok.Encode(nil, text)
	done := make(chan bool)
	for range 4 {
		go func() { done <- slices.Equal(tok.Encode(nil, text), want) }()
	}
	for range 4 {
		if !<-done {
			t.Error("concurrent encodings differ")
		}
	}
}

// hostile are texts of about a megabyte that are hard for one step or another.
func hostile() map[string][]byte {
	random := rand.New(rand.NewPCG(5, 6))
	const size = 1 << 20
	draw := func(from string, spaces int) []byte {
		var b []byte
		runes := []rune(from)
		for len(b) < size {
			b = utf8.AppendRune(b, runes[random.IntN(len(runes))])
			if spaces > 0 && random.IntN(spaces) == 0 {
				b = append(b, ' ')
			}
		}
		return b
	}
	noise := make([]byte, size)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	return map[string][]byte{
		"one piece of letters":   draw("abcdefghijklmnopqrstuvwxyz", 0),
		"one piece of few":       draw("aeinrst", 0),
		"one letter":             bytes.Repeat([]byte("a"), size),
		"a long period":          bytes.Repeat([]byte("xqzjvwkyh"), size/9),
		"words that never recur": draw("abcdefghijklmnopqrstuvwxyz", 12),
		"spaces":                 bytes.Repeat([]byte(" "), size),
		"punctuation":            draw("!#$%&()*+,-./:;<=>?@[]^_{|}~", 0),
		"digits":                 draw("0123456789", 0),
		"upper and lower":        draw("aAbBcC\u3042\u0301", 0),
		"CJK":                    draw("\u65e5\u672c\u8a9e\u4e2d\u6587\u5b57\u6f22\u8a9e\u7684\u662f\u4e86\u6211", 0),
		"rare characters":        draw("\U00010400\u1e9e\u0f00\ua015\u2800\U0001f600\U0001f9ff", 0),
		"noise":                  noise,
		"newlines":               bytes.Repeat([]byte("\n \n\t"), size/4),
	}
}

// TestHostileTexts takes minutes where a step is quadratic.
func TestHostileTexts(t *testing.T) {
	for _, name := range Names() {
		tok := open(t, name)
		for what, text := range hostile() {
			if got := tok.Decode(nil, tok.Encode(nil, text)); !bytes.Equal(got, text) {
				t.Errorf("%s: %s do not round trip", name, what)
			}
		}
	}
}

// TestMemory: the largest vocabulary, with the scratch memory of a text, stays below 64 MB.
func TestMemory(t *testing.T) {
	live := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	text := hostile()["words that never recur"]
	before := live()
	tok, err := New("o200k")
	if err != nil {
		t.Fatal(err)
	}
	ids := tok.Encode(nil, text)
	used := live() - before - 4*uint64(cap(ids))
	t.Logf("%d MB", used>>20)
	if used > 64<<20 {
		t.Errorf("%d bytes", used)
	}
	runtime.KeepAlive(tok)
	runtime.KeepAlive(ids)
	runtime.KeepAlive(text)
}

func FuzzRoundTrip(f *testing.F) {
	for _, s := range append(awkward, invalid...) {
		f.Add([]byte(s))
	}
	var all []Tokenizer
	for _, name := range Names() {
		all = append(all, open(f, name))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, tok := range all {
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
	var ours []Tokenizer
	var theirs []*tiktoken.Tiktoken
	for name := range references {
		ours, theirs = append(ours, open(f, name)), append(theirs, tiktokenEncoder(f, name))
	}
	f.Fuzz(func(t *testing.T, s string) {
		for i := range ours {
			compare(t, ours[i], theirs[i], strings.ToValidUTF8(s, "?"))
		}
	})
}

// BenchmarkEncode must reach 35 MB/s on prose and on textbooks, with built-in vocabularies and the same from files.
func BenchmarkEncode(b *testing.B) {
	for _, name := range Names() {
		tok := open(b, name)
		b.Run(name+"/prose", func(b *testing.B) { benchmark(b, tok, prose(b)) })
		b.Run(name+"/textbooks", func(b *testing.B) { benchmark(b, tok, textbooks(b)) })
	}
	for _, name := range []string{"gpt2", "cl100k", "o200k"} {
		file, err := HuggingFace(open(b, name))
		if err != nil {
			b.Fatal(err)
		}
		tok := parse(b, file)
		b.Run(name+".json/prose", func(b *testing.B) { benchmark(b, tok, prose(b)) })
		b.Run(name+".json/textbooks", func(b *testing.B) { benchmark(b, tok, textbooks(b)) })
	}
}

// textbooks are 8 MB of text that is not part of the project.
func textbooks(b *testing.B) []byte {
	dir := cmp.Or(os.Getenv("BITNET1_SHARED"), filepath.Join("..", "..", "..", "..", "shared"))
	f, err := os.Open(filepath.Join(dir, "data", "openstax.jsonl.zst"))
	if err != nil {
		b.Skipf("no textbooks: set BITNET1_SHARED to the folder that holds data/openstax.jsonl.zst: %v", err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		b.Fatal(err)
	}
	defer z.Close()
	var text []byte
	for d := json.NewDecoder(z); len(text) < 8<<20; {
		var line struct{ Text string }
		if err := d.Decode(&line); err != nil {
			b.Fatal(err)
		}
		text = append(text, line.Text...)
	}
	return text
}

// BenchmarkHostile must reach 10 MB/s on each.
func BenchmarkHostile(b *testing.B) {
	texts := hostile()
	for name := range references {
		tok := open(b, name)
		for _, what := range slices.Sorted(maps.Keys(texts)) {
			b.Run(name+"/"+strings.ReplaceAll(what, " ", "_"), func(b *testing.B) { benchmark(b, tok, texts[what]) })
		}
	}
}

// benchmark reports, beside the usual, what a processor does in a second of its time: on a busy machine it is that
// number which says what the code is worth.
func benchmark(b *testing.B, tok Tokenizer, text []byte) {
	dst := tok.Encode(nil, text)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	n, before := 0, processorTime(b)
	for b.Loop() {
		dst = tok.Encode(dst[:0], text)
		n += len(text)
	}
	b.ReportMetric(float64(n)/1e6/(processorTime(b)-before).Seconds(), "MB/cpu-s")
}

// processorTime is what the process has used.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSplit is the part of encoding before any vocabulary is asked.
func BenchmarkSplit(b *testing.B) {
	for name := range references {
		tok, text := open(b, name).(*bpe), prose(b)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				for i := 0; i < len(text); {
					i = tok.split(tok.classes, text, i)
				}
			}
		})
	}
}

// BenchmarkMerge encodes a piece that is no token.
func BenchmarkMerge(b *testing.B) {
	for name := range references {
		tok := open(b, name).(*bpe)
		b.Run(name, func(b *testing.B) {
			piece, p := []byte("antidisestablishmentarianistically"), new(path)
			dst := tok.merges.encode(nil, piece, p)
			b.SetBytes(int64(len(piece)))
			b.ReportAllocs()
			for b.Loop() {
				dst = tok.merges.encode(dst[:0], piece, p)
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for name := range references {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := New(name); err != nil {
					b.Fatal(err)
				}
			}
		})
		file, err := HuggingFace(open(b, name))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+".json", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				parse(b, file)
			}
		})
	}
}
