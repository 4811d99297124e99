package tokenizer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/pythontest"
)

// piecesOf counts the pieces of texts.
func piecesOf(pattern string, texts ...string) *Pieces {
	p := NewPieces(pattern)
	for _, text := range texts {
		p.Add([]byte(text))
	}
	return p
}

func train(t testing.TB, p *Pieces, o Training) []byte {
	t.Helper()
	file, err := Train(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// mergesOf are the merges of a tokenizer.json, and the ids of its tokens.
func mergesOf(t testing.TB, file []byte) (merges []string, vocab map[string]int) {
	t.Helper()
	var f struct {
		Model struct {
			Vocab  map[string]int    `json:"vocab"`
			Merges []json.RawMessage `json:"merges"`
		} `json:"model"`
	}
	if err := json.Unmarshal(file, &f); err != nil {
		t.Fatal(err)
	}
	for _, m := range f.Model.Merges {
		var pair [2]string
		var text string
		if json.Unmarshal(m, &pair) == nil {
			text = pair[0] + " " + pair[1]
		} else if err := json.Unmarshal(m, &text); err != nil {
			t.Fatal(err)
		}
		merges = append(merges, text)
	}
	return merges, f.Model.Vocab
}

// TestTrain merges by hand. In "hug pug pun bun hugs" ug occurs three times, and un twice; hug occurs twice.
func TestTrain(t *testing.T) {
	p := piecesOf("gpt2", "hug", "pug", "pun", "bun", "hugs")
	for _, test := range []struct {
		o    Training
		want []string
	}{
		{Training{Vocab: 257, MinFrequency: 1}, nil},
		{Training{Vocab: 258, MinFrequency: 1}, []string{"u g"}},
		{Training{Vocab: 260, MinFrequency: 1}, []string{"u g", "h ug", "u n"}}, // h has a smaller id than u
		{Training{Vocab: 1000, MinFrequency: 2}, []string{"u g", "h ug", "u n"}},
		{Training{Vocab: 262, MinFrequency: 1}, []string{"u g", "h ug", "u n", "b un", "p ug"}},
		{Training{Vocab: 1000, MinFrequency: 1}, []string{"u g", "h ug", "u n", "b un", "p ug", "p un", "hug s"}},
		{Training{Vocab: 1000, MinFrequency: 4}, nil},
	} {
		file := train(t, p, test.o)
		if merges, vocab := mergesOf(t, file); !slices.Equal(merges, test.want) || len(vocab) != 257+len(test.want) ||
			vocab[endOfTextBytes] != 0 || vocab["!"] != 1 || vocab["u"] != 'u'-'!'+1 {
			t.Errorf("%+v: merges %q, want %q; %d ids", test.o, merges, test.want, len(vocab))
		}
		tok := parse(t, file)
		if text := "a hug\x00 of pugs\xff"; string(tok.Decode(nil, tok.Encode(nil, []byte(text)))) != text ||
			tok.Vocab() != 257+len(test.want) || tok.EndOfText() != 0 {
			t.Errorf("%d ids, end of text %d", tok.Vocab(), tok.EndOfText())
		}
	}
}

// TestTrainRefused: what cannot be is refused, and a context that ends does end it.
func TestTrainRefused(t *testing.T) {
	for _, o := range []Training{{Vocab: 256, MinFrequency: 1}, {Vocab: maxID + 1, MinFrequency: 1}, {Vocab: 300}} {
		if _, err := Train(t.Context(), piecesOf("gpt2", "a"), o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if err := CheckPattern("gpt3"); err == nil || !strings.Contains(err.Error(), "cl100k, gpt2, o200k, qwen, tekken") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := Training{Vocab: 1000, MinFrequency: 1, Merged: func(ids int) {
		if ids == 260 {
			cancel()
		}
	}}
	if file, err := Train(ctx, piecesOf("gpt2", "hug pug pun bun hugs"), o); !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes, %v", len(file), err)
	}
}

// TestPiecesMerge: pieces are the same whether texts are counted together or apart.
func TestPiecesMerge(t *testing.T) {
	texts := append([]string{string(prose(t))}, awkward...)
	together, apart := piecesOf("o200k", texts...), NewPieces("o200k")
	for _, text := range texts {
		part := apart.Empty()
		part.Add([]byte(text))
		apart.Merge(part)
	}
	if !reflect.DeepEqual(together.all, apart.all) || !slices.Equal(together.times, apart.times) {
		t.Errorf("%d pieces, and %d", together.Len(), apart.Len())
	}
}

// TestPrune leaves out the rarest pieces, all that occur equally often, and only where memory is short.
func TestPrune(t *testing.T) {
	p := piecesOf("gpt2", strings.Repeat("x", 999), strings.Repeat(" a", 5), strings.Repeat(" b", 3),
		strings.Repeat(" c", 3))
	for _, test := range []struct {
		memory, dropped int64
		want            []string
	}{
		{p.Memory(), 0, []string{strings.Repeat("x", 999), " a", " b", " c"}},
		{p.Memory() - 1, 1, []string{" a", " b", " c"}},
		{5 * (memoryOfPiece + 2*memoryOfByte), 7, []string{" a"}},
		{1, 12, nil},
	} {
		q := p.Empty()
		q.Merge(p)
		if dropped := q.Prune(test.memory); dropped != test.dropped || q.Len() != len(test.want) {
			t.Errorf("%d bytes: %d dropped, want %d; %d pieces", test.memory, dropped, test.dropped, q.Len())
		}
		for i, want := range test.want {
			if got := string(q.all.token(uint32(i))); got != want {
				t.Errorf("%d bytes: piece %d is %.9q", test.memory, i, got)
			}
		}
	}
}

// trainScript trains with the package tokenizers.
const trainScript = `
import json, sys
from tokenizers import Tokenizer, Regex, models, trainers, pre_tokenizers, decoders
jobs, out = json.load(sys.stdin), []
for job in jobs:
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(job["pattern"]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.train_from_iterator(job["texts"], trainers.BpeTrainer(
        vocab_size=job["vocab"], min_frequency=job["least"], special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    ours = Tokenizer.from_str(job["file"])
    ours.encode_special_tokens = True
    t.encode_special_tokens = True
    out.append({"file": t.to_str(),
        "tokens": [ours.encode(x, add_special_tokens=False).ids for x in job["texts"]],
        "theirs": [t.encode(x, add_special_tokens=False).ids for x in job["texts"]]})
json.dump(out, sys.stdout)
`

// TestTrainAgrees compares merges, ids and tokens with the package tokenizers: on prose, and on texts of few letters
// and long runs, where many pairs occur equally often and tokens are merged in several ways.
func TestTrainAgrees(t *testing.T) {
	python := pythontest.Interpreter(t, "tokenizers")
	random := rand.New(rand.NewPCG(51, 52))
	type job struct {
		Pattern string   `json:"pattern"`
		Vocab   int      `json:"vocab"`
		Least   int64    `json:"least"`
		Texts   []string `json:"texts"`
		File    string   `json:"file"`
	}
	var jobs []job
	for i := range 100 {
		j := job{Pattern: Patterns()[i%len(Patterns())], Vocab: 257 + random.IntN(300), Least: 1 + int64(i%3)}
		letters := strings.Split([]string{"a", "ab", "a-", "abc '", "é日a"}[i/len(Patterns())%5], "")
		for range 1 + random.IntN(30) {
			var b strings.Builder
			for range 1 + random.IntN(20) {
				b.WriteString(strings.Repeat(letters[random.IntN(len(letters))], 1+random.IntN(9)))
			}
			j.Texts = append(j.Texts, b.String())
		}
		jobs = append(jobs, j)
	}
	for _, pattern := range Patterns() {
		texts := append(slices.Clone(awkward), string(prose(t)[:200_000]))
		jobs = append(jobs, job{Pattern: pattern, Vocab: 2000, Least: 2, Texts: texts})
	}
	for i, j := range jobs {
		o := Training{Vocab: j.Vocab, MinFrequency: j.Least}
		jobs[i].File = string(train(t, piecesOf(j.Pattern, j.Texts...), o))
		jobs[i].Pattern = patterns[j.Pattern]
	}
	c := exec.Command(python, "-c", trainScript)
	c.Stdin, c.Stderr = bytes.NewReader(encodeJSON(t, jobs)), os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var results []struct {
		File           string
		Tokens, Theirs [][]uint32
	}
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatal(err)
	}
	for i, j := range jobs {
		ours, vocab := mergesOf(t, []byte(j.File))
		theirs, theirVocab := mergesOf(t, []byte(results[i].File))
		if !slices.Equal(ours, theirs) || !reflect.DeepEqual(vocab, theirVocab) {
			t.Errorf("%d: %+.300v: merges\n%.900q, want\n%.900q", i, j.Texts, ours, theirs)
		}
		tok := parse(t, []byte(j.File))
		for k, text := range j.Texts {
			got := tok.Encode(nil, []byte(text))
			if !slices.Equal(got, results[i].Tokens[k]) || !slices.Equal(got, results[i].Theirs[k]) {
				t.Errorf("%d: %.100q: %.20v, the package says %.20v of our file, %.20v of its own", i, text, got,
					results[i].Tokens[k], results[i].Theirs[k])
			}
		}
	}
}

// TestTrainingMemory: what lives at any time is at most half of Memory. The other half is for the garbage collector,
// which runs when there is as much garbage as there are living objects.
func TestTrainingMemory(t *testing.T) {
	for length, n := range map[int]int{3: 100_000, 8: 50_000, 200: 4_000} {
		random, p := rand.New(rand.NewPCG(61, 62)), NewPieces("gpt2")
		for range n {
			var piece []byte
			for range length/2 + random.IntN(length+1) {
				piece = append(piece, byte('a'+random.IntN(26)))
			}
			if len(piece) > 0 {
				p.add(piece, 1+random.Int64N(5))
			}
		}
		before, peak := living(), int64(0)
		train(t, p, Training{Vocab: 1500, MinFrequency: 1, Merged: func(ids int) {
			if ids < 300 && ids%4 == 0 || ids%100 == 0 {
				peak = max(peak, living()-before)
			}
		}})
		t.Logf("%d pieces of about %d bytes: %d kB, and %d kB are half of Memory", p.Len(), length, peak>>10,
			p.Memory()>>11)
		if peak > p.Memory()/2 {
			t.Errorf("%d pieces of about %d bytes take %d bytes, more than %d", p.Len(), length, peak, p.Memory()/2)
		}
	}
}

// living is the number of bytes of living objects.
func living() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
