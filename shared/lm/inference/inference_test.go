package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

const endOfText = 3

// small has more positions than a query searches at first, and widths that are no multiples of 64.
var small = model.Config{
	Vocab: 61, D: 72, Layers: 3, Heads: 4, FF: 130, Seq: 340, Eps: 1e-5, StreamBits: 1, Alibi: true,
}

// write packs a random model of configuration c, with a self-test if tested.
func write(t testing.TB, c model.Config, d model.Documents, tested bool) (path string) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 7))
	parameters := c.Parameters()
	for i, p := range parameters {
		data := make([]float32, p.Size())
		for j := range data {
			switch x := float32(random.NormFloat64()); {
			case strings.HasSuffix(p.Name, "alpha"):
				data[j] = float16.Round((1 + 0.2*x) / 6)
			case strings.HasSuffix(p.Name, "theta"):
				data[j] = float16.Round(0.3 * x)
			case len(p.Shape) == 1:
				data[j] = 1 + 0.1*x
			default:
				data[j] = x
			}
		}
		parameters[i].Data = data
	}
	about := checkpoint.Provenance{Step: 10, Tokenizer: "bytes", Gamma: 0.73, Mix: 1, Documents: d,
		Recipe: json.RawMessage(`{}`)}
	var test *bit2.SelfTest
	if tested {
		m, settings, err := checkpoint.Inference(cpu.New(cpu.Options{}), c, about, model.Each(parameters), 1,
			bit2.TestedTokens(c))
		if err == nil {
			test, err = bit2.NewSelfTest(m, settings)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := bit2.Write(&b, c, about, model.Each(parameters), test); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "model.bit2")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *Model {
	t.Helper()
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func session(t testing.TB, m *Model) *Session {
	t.Helper()
	s, err := m.NewSession(Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// text is random, with repetitions, so that some scores are equal, and with ends of text.
func text(c model.Config, n int) (tokens []int32) {
	random := rand.New(rand.NewPCG(1, 4))
	for range n {
		switch at := len(tokens); {
		case at > 20 && at%3 > 0:
			tokens = append(tokens, tokens[at-17])
		default:
			tokens = append(tokens, int32(random.IntN(c.Vocab)))
		}
	}
	return tokens
}

// trained is what shared/lm/model computes of a packed model.
type trained struct {
	logits   []float32
	greedy   []int32
	pointers [][]int32 // of every layer: Heads × Seq × Survivors
}

func train(t *testing.T, path string, tokens []int32) (r trained) {
	t.Helper()
	f, err := bit2.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, settings, err := f.Inference(cpu.New(cpu.Options{}), 1, len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	if r.logits, err = m.Logits(tokens, 0, len(tokens), settings); err != nil {
		t.Fatal(err)
	}
	if r.greedy, err = m.Greedy(tokens, settings); err != nil {
		t.Fatal(err)
	}
	for l := range f.Config.Layers {
		p, err := m.Pointers(l)
		if err != nil {
			t.Fatal(err)
		}
		r.pointers = append(r.pointers, p)
	}
	return r
}

// compare computes tokens in pieces of the given lengths, over and over, and compares all decisions with r.
func (r trained) compare(t *testing.T, s *Session, tokens []int32, pieces ...int) {
	t.Helper()
	c := s.model.Config
	for i := 0; s.Len() < len(tokens); i++ {
		first := s.Len()
		n := min(pieces[i%len(pieces)], len(tokens)-first)
		logits, err := s.Prefill(tokens[first : first+n])
		if err != nil {
			t.Fatal(err)
		}
		last := s.Len() - 1
		if !slices.Equal(logits, r.logits[last*c.Vocab:][:c.Vocab]) {
			t.Fatalf("pieces %v: logits after position %d are %v, want %v", pieces, last, logits[:4],
				r.logits[last*c.Vocab:][:4])
		}
		if best := slices.Index(logits, slices.Max(logits)); int32(best) != r.greedy[last] {
			t.Fatalf("pieces %v: greedy token after position %d is %d, want %d", pieces, last, best, r.greedy[last])
		}
		r.comparePointers(t, s, (n-1)%s.most+1) // those that were computed last
	}
}

// comparePointers compares the pointers of the rows that were computed last.
func (r trained) comparePointers(t *testing.T, s *Session, rows int) {
	t.Helper()
	c, last := s.model.Config, s.Len()-1
	survivors := c.Survivors(c.Seq)
	for l := range c.Layers {
		got := make([]int32, c.Heads*rows*survivors)
		if err := s.dev.DownloadInts(got, s.layers[l].pointers); err != nil {
			t.Fatal(err)
		}
		for h := range c.Heads {
			want := r.pointers[l][(h*len(r.greedy)+last+1-rows)*survivors:][:rows*survivors]
			if !slices.Equal(got[h*rows*survivors:][:rows*survivors], want) {
				t.Fatalf("layer %d, head %d: pointers of the %d positions to %d differ", l, h, rows, last)
			}
		}
	}
}

// with returns c, changed.
func with(c model.Config, change func(c *model.Config)) model.Config {
	change(&c)
	return c
}

func TestDecisionsAreThoseOfTraining(t *testing.T) {
	separate := model.Documents{Separate: true, EndOfText: endOfText}
	v76, v77 := small.V76(), small.V77()
	for name, c := range map[string]struct {
		model.Config
		documents model.Documents
	}{
		"v75":           {Config: small.V75()},
		"v75, 4 bits":   {Config: with(small.V75(), func(c *model.Config) { c.StreamBits = 4 }), documents: separate},
		"v76":           {Config: v76},
		"v76, 4 bits":   {Config: with(v76, func(c *model.Config) { c.StreamBits = 4 })},
		"v76, floats":   {Config: with(v76, func(c *model.Config) { c.StreamBits = kernels.FloatBits })},
		"v76, no ALiBi": {Config: with(v76, func(c *model.Config) { c.Alibi = false })},
		"v76, 7 survivors, separate documents": {Config: with(v76, func(c *model.Config) { c.RWSPK = 7 }),
			documents: separate},
		"v76, wide heads": {Config: with(v76, func(c *model.Config) { c.D, c.Heads = 144, 2 })},
		"v77":             {Config: v77},
		"v77, K-shift by 3 without self, separate documents": {Config: with(v77, func(c *model.Config) {
			c.KShiftLayers, c.KShiftOffset, c.KShiftSelf = []int{0, 2}, 3, false
		}), documents: separate},
		"v77, K-shift by more than a piece": {Config: with(v77, func(c *model.Config) { c.KShiftOffset, c.Seq = 50, 600 })},
		"v77, few bits of reads": {Config: with(v77, func(c *model.Config) {
			c.HiddenBits, c.ReadBits, c.ValueBits, c.CodebookBits = 2, 1, 3, 8
		})},
		"v77, queries of levels, separate documents": {Config: with(v77, func(c *model.Config) {
			c.QueryBits, c.KShiftLayers = 4, []int{0, 2}
		}), documents: separate},
		"v77, queries of levels, wide heads": {Config: with(v77, func(c *model.Config) {
			c.QueryBits, c.D, c.Heads, c.Hadamard = 2, 144, 2, 16
		})},
		"v77, widths of whole registers": {Config: with(v77, func(c *model.Config) {
			c.D, c.FF, c.Hadamard, c.Layers = 256, 512, 128, 2
		})},
		"softmax": {Config: with(v76, func(c *model.Config) { c.Attention = kernels.Softmax.String() }),
			documents: separate},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.Config, c.documents, true)
			m, tokens := open(t, path), text(c.Config, c.Seq)
			want := train(t, path, tokens)
			s := session(t, m)
			want.compare(t, s, tokens, 1)
			if err := s.Truncate(101); err != nil {
				t.Fatal(err)
			}
			want.compare(t, s, tokens, 1, 2, 9, 3, 33)
			want.compare(t, session(t, m), tokens, c.Seq)
			want.compare(t, session(t, m), tokens, 70, 1, 1, 1, 1, 5)
		})
	}
}

// Keys that are far away are found as in training.
func TestLongSequences(t *testing.T) {
	long := with(small, func(c *model.Config) {
		c.Seq, c.Layers, c.D, c.FF, c.StreamBits = 16_384, 2, 256, 256, 4
	})
	for name, c := range map[string]model.Config{
		"v75": long.V75(), "v76": long.V76(), "v77": long.V77(),
		"v76, strict": with(long.V76(), func(c *model.Config) { c.StreamBits = 1 }),
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c, model.Documents{}, false)
			tokens := text(c, c.Seq)
			want := train(t, path, tokens)
			want.compare(t, session(t, open(t, path)), tokens, 1)
			want.compare(t, session(t, open(t, path)), tokens, 1000, 1, 1, 30)
		})
	}
}

// A sequence that is cut off goes on as if what was cut off had never been.
func TestTruncate(t *testing.T) {
	path := write(t, small.V77(), model.Documents{Separate: true, EndOfText: endOfText}, false)
	tokens := text(small, small.Seq)
	want := train(t, path, tokens)
	s := session(t, open(t, path))
	for _, keep := range []int{100, 64, 3, 0} {
		other := slices.Repeat([]int32{endOfText, 5, 9}, 40)
		if _, err := s.Prefill(other); err != nil {
			t.Fatal(err)
		}
		if err := s.Truncate(0); err != nil {
			t.Fatal(err)
		}
		want.compare(t, s, tokens, 60)
		if err := s.Truncate(keep); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prefill(other); err != nil {
			t.Fatal(err)
		}
		if err := s.Truncate(keep); err != nil || s.Len() != keep {
			t.Fatalf("%d tokens after Truncate(%d), %v", s.Len(), keep, err)
		}
		want.compare(t, s, tokens, 1, 60)
		if err := s.Truncate(keep); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{-1, s.Len() + 1} {
		if err := s.Truncate(n); err == nil {
			t.Errorf("a sequence of %d tokens is truncated to %d", s.Len(), n)
		}
	}
}

// Sessions of one model compute at once, each with its own sequence.
func TestSessionsShareAModel(t *testing.T) {
	path := write(t, small.V77(), model.Documents{}, false)
	m, tokens := open(t, path), text(small, small.Seq)
	want := train(t, path, tokens)
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s, err := m.NewSession(Options{Workers: 1 + i%2})
			if err != nil {
				t.Fatal(err)
			}
			want.compare(t, s, tokens, 1+i)
		})
	}
}

// Sequences that are decoded together, of other lengths and beginnings, are those that are decoded by themselves.
func TestDecodeTogether(t *testing.T) {
	separate := model.Documents{Separate: true, EndOfText: endOfText}
	strict, many := small.V76(), with(small.V77(), func(c *model.Config) {
		c.KShiftLayers, c.KShiftOffset, c.Seq = []int{0, 2}, 3, 70
	})
	for name, c := range map[string]model.Config{"strict": strict, "v77": many} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c, separate, false)
			m, tokens := open(t, path), text(c, c.Seq)
			for i := 4; i < len(tokens); i += 9 {
				tokens[i] = endOfText
			}
			var sessions []*Session
			var texts [][]int32
			var wants []trained
			for i := range 18 {
				sessions, texts = append(sessions, session(t, m)), append(texts, slices.Concat(tokens[i:], tokens[:i]))
				wants = append(wants, train(t, path, texts[i]))
				wants[i].compare(t, sessions[i], texts[i][:1+3*(i%5)], 1+i)
			}
			for step := range 30 {
				together := sessions[step%3 : 3+(step*7)%16] // they come and go
				var next []int32
				for i, s := range together {
					next = append(next, texts[step%3+i][s.Len()])
				}
				logits, err := m.DecodeTogether(together, next)
				if err != nil {
					t.Fatal(err)
				}
				for i, s := range together {
					want := wants[step%3+i]
					if last := s.Len() - 1; !slices.Equal(logits[i], want.logits[last*c.Vocab:][:c.Vocab]) {
						t.Fatalf("step %d: session %d has other logits after position %d", step, step%3+i, last)
					}
					want.comparePointers(t, s, 1)
				}
			}
			for i, s := range sessions {
				wants[i].compare(t, s, texts[i], 1, 7)
			}
		})
	}
}

// A refused call of DecodeTogether changes no sequence.
func TestDecodeTogetherRefuses(t *testing.T) {
	path := write(t, small.V77(), model.Documents{}, false)
	m, tokens := open(t, path), text(small, small.Seq)
	want := train(t, path, tokens)
	a, b, full, other := session(t, m), session(t, m), session(t, m), session(t, open(t, path))
	want.compare(t, a, tokens[:5], 5)
	want.compare(t, b, tokens[:9], 9)
	want.compare(t, full, tokens, 300)
	for _, c := range []struct {
		sessions []*Session
		tokens   []int32
		want     string
	}{
		{nil, nil, "0 tokens of 0 sessions"},
		{[]*Session{a, b}, []int32{1}, "1 tokens of 2 sessions"},
		{[]*Session{a, b, a}, []int32{1, 2, 3}, "session 2 is one of another model, or is there twice"},
		{[]*Session{a, other}, []int32{1, 2}, "session 1 is one of another model"},
		{[]*Session{a, full}, []int32{1, 2}, "session 1: 1 tokens after 340"},
		{[]*Session{a, b}, []int32{1, 61}, "token 61 at position 9"},
	} {
		if _, err := m.DecodeTogether(c.sessions, c.tokens); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if a.Len() != 5 || b.Len() != 9 || full.Len() != small.Seq {
		t.Errorf("the sequences have %d, %d and %d tokens", a.Len(), b.Len(), full.Len())
	}
	want.compare(t, a, tokens, 1)
	want.compare(t, b, tokens, 50)
}

// Each gives the logits after every token, and takes all tokens back after an error.
func TestEach(t *testing.T) {
	path := write(t, small.V77(), model.Documents{}, false)
	m, tokens := open(t, path), text(small, small.Seq)
	want, s := train(t, path, tokens), session(t, m)
	stop := errors.New("stop")
	for _, c := range []struct{ from, to, fail int }{
		{0, 3, -1}, {3, 300, 280}, {3, 300, -1}, {300, 340, 0}, {300, 340, -1},
	} {
		next := 0
		err := s.Each(tokens[c.from:c.to], func(i int, logits []float32) error {
			if i != next || !slices.Equal(logits, want.logits[(c.from+i)*small.Vocab:][:small.Vocab]) {
				t.Fatalf("from %d: logits %d are others, or come when %d are due", c.from, i, next)
			}
			if next++; i == c.fail {
				return stop
			}
			return nil
		})
		switch {
		case c.fail < 0 && (err != nil || next != c.to-c.from || s.Len() != c.to):
			t.Errorf("%v, %d of %d tokens, %d in all", err, next, c.to-c.from, s.Len())
		case c.fail >= 0 && (!errors.Is(err, stop) || s.Len() != c.from):
			t.Errorf("after an error of f: %v, %d tokens", err, s.Len())
		}
	}
}

// After a refused call the sequence is as it was.
func TestRefusals(t *testing.T) {
	path := write(t, small.V77(), model.Documents{}, false)
	m, tokens := open(t, path), text(small, small.Seq)
	want := train(t, path, tokens)
	s := session(t, m)
	want.compare(t, s, tokens[:len(tokens)-2], 300)
	for _, c := range []struct {
		tokens []int32
		want   string
	}{
		{nil, "no tokens"},
		{[]int32{1, 61}, `token 61 at position 339 is none of the vocabulary of 61: was the text encoded with another ` +
			`tokenizer than "bytes"?`},
		{[]int32{-1}, "token -1 at position 338"},
		{[]int32{1, 2, 3}, "3 tokens after 338, and the model's context is 340: the context is full"},
	} {
		_, err := s.Prefill(c.tokens)
		if err == nil || !strings.Contains(err.Error(), c.want) || s.Len() != 338 {
			t.Errorf("%v: %v, %d tokens; want %q", c.tokens, err, s.Len(), c.want)
		}
	}
	want.compare(t, s, tokens, 1)
	if _, err := s.Decode(1); !errors.Is(err, ErrContextFull) {
		t.Errorf("a full context: %v", err)
	}
	if err := s.Truncate(0); err != nil {
		t.Fatal(err)
	}
	late := slices.Clone(tokens)
	late[330] = 61 // in the second part that is computed together
	if _, err := s.Prefill(late); err == nil || s.Len() != 0 {
		t.Errorf("an impossible token at 330: %v, %d tokens", err, s.Len())
	}
	want.compare(t, s, tokens, 300)
}

func TestClose(t *testing.T) {
	m, err := Open(write(t, small.V76(), model.Documents{}, false))
	if err != nil {
		t.Fatal(err)
	}
	s := session(t, m)
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Decode(1); !errors.Is(err, errClosed) {
		t.Errorf("Decode of a closed model: %v", err)
	}
	if _, err := m.NewSession(Options{}); !errors.Is(err, errClosed) {
		t.Errorf("NewSession of a closed model: %v", err)
	}
}

// Weights of whole registers are read where the file is mapped, in both versions of the format.
func TestWeightsAreNotCopied(t *testing.T) {
	wide := with(small, func(c *model.Config) { c.D, c.FF, c.Seq, c.Layers = 1024, 4096, 16, 1 })
	for _, c := range []model.Config{wide.V76(), wide.V77()} {
		path := write(t, c, model.Documents{}, false)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		open(t, path)
		runtime.ReadMemStats(&after)
		if n := int64(after.TotalAlloc - before.TotalAlloc); n > info.Size()/4 {
			t.Errorf("a file of %d bytes is opened with %d bytes of other memory", info.Size(), n)
		}
	}
}

// A pipe cannot be mapped into memory, and is read.
func TestOpensWhatCannotBeMapped(t *testing.T) {
	c := small.V77()
	path := write(t, c, model.Documents{}, true)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error)
	go func() { written <- os.WriteFile(pipe, whole, 0o600) }()
	m := open(t, pipe)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	tokens := text(c, 50)
	train(t, path, tokens).compare(t, session(t, m), tokens, 1)
}

// A file whose self-test says anything else than the model computes is not opened.
func TestSelfTest(t *testing.T) {
	c := small.V77()
	for name, change := range map[string]func(test *bit2.SelfTest){
		"the first token":                    func(test *bit2.SelfTest) { test.Best[0] ^= 1 },
		"the last logit":                     func(test *bit2.SelfTest) { test.Logits[len(test.Logits)-1] += 1e-3 },
		"a logit of those computed together": func(test *bit2.SelfTest) { test.Logits[9] -= 1e-3 },
	} {
		path := write(t, c, model.Documents{}, true)
		rewriteSelfTest(t, path, change)
		_, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), "self-test: after ") ||
			!strings.Contains(err.Error(), "this processor or this build of the program computes something else") {
			t.Errorf("%s is changed: %v", name, err)
		}
	}
}

// rewriteSelfTest changes the self-test of a file.
func rewriteSelfTest(t *testing.T, path string, change func(test *bit2.SelfTest)) {
	t.Helper()
	f, err := bit2.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	test, err := f.SelfTest()
	if err != nil {
		t.Fatal(err)
	}
	change(test)
	var b bytes.Buffer
	if err := bit2.Write(&b, f.Config, f.Provenance, f.Parameters(), test); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRefusesDamagedFiles(t *testing.T) {
	path := write(t, small.V77(), model.Documents{}, true)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"flipped":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"padding": func(b []byte) []byte { // the last bit of the first row of weights, of 72 columns
			at := 16 + int(b[8]) + int(b[9])<<8
			b[at+15] |= 0x80
			digest := blake3.Sum256(b[:len(b)-32])
			return append(b[:len(b)-32], digest[:]...)
		},
	} {
		if err := os.WriteFile(path, damage(slices.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.bit2")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
