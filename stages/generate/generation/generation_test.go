package generation

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/inference"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/sampling"
	"bitnet1/shared/measure/measuretest"
)

var about = checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1}

func open(t *testing.T, path string) (*Model, *Generator) {
	t.Helper()
	m, err := Open(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	g, err := m.NewGenerator()
	if err != nil {
		t.Fatal(err)
	}
	return m, g
}

// write generates a text, and checks that its pieces are whole characters and make the text.
func write(t *testing.T, g *Generator, prompt []int32, o Options) Result {
	t.Helper()
	var pieces strings.Builder
	var tokens []int32
	r, err := g.Generate(t.Context(), prompt, o, func(p Piece) error {
		if !utf8.ValidString(p.Text) {
			t.Errorf("piece %q is no text", p.Text)
		}
		pieces.WriteString(p.Text)
		if p.Token >= 0 {
			tokens = append(tokens, p.Token)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pieces.String() != r.Text || !slices.Equal(tokens, r.Tokens) {
		t.Errorf("pieces %q of tokens %v, result %+v", pieces.String(), tokens, r)
	}
	return r
}

// The most probable tokens are those of the model that trains.
func TestGreedyTextIsTheTrainers(t *testing.T) {
	for name, c := range map[string]model.Config{"v76": measuretest.Config(48), "v77": measuretest.Config(48).V77()} {
		path := measuretest.Packed(t, measuretest.Checkpoint(t, c, about))
		f, err := bit2.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		trainer, settings, err := f.Inference(cpu.New(cpu.Options{}), 1, c.Seq)
		if err != nil {
			t.Fatal(err)
		}
		m, g := open(t, path)
		prompt := m.Encode("A pot")
		sequence := append(slices.Clone(prompt), make([]int32, c.Seq-len(prompt))...)
		var want []int32
		for at := len(prompt); ; at++ { // the last token follows a full sequence
			best, err := trainer.Greedy(sequence, settings)
			if err != nil {
				t.Fatal(err)
			}
			if best[at-1] == m.EndOfText() {
				break
			}
			if want = append(want, best[at-1]); at == c.Seq {
				break
			}
			sequence[at] = best[at-1]
		}
		r := write(t, g, prompt, Options{})
		if !slices.Equal(r.Tokens, want) || len(want) < 3 || r.Text != m.Text(want) {
			t.Errorf("%s: wrote %v, trainer %v", name, r, want)
		}
		if wanted := map[bool]Finish{true: ContextFull, false: EndOfText}[len(prompt)+len(want) > c.Seq]; r.Finish != wanted {
			t.Errorf("%s: finish %q, want %q", name, r.Finish, wanted)
		}
	}
}

// A text depends on the model, the prompt and the options alone: not on what the generator wrote before, on threads, or
// on whether the model comes as a checkpoint.
func TestSameSeedSameText(t *testing.T) {
	saved := measuretest.Checkpoint(t, measuretest.Config(64), about)
	path := measuretest.Packed(t, saved)
	m, g := open(t, path)
	options := func(seed uint64) Options {
		return Options{Options: sampling.Options{Temperature: 1, Seed: seed}, Tokens: 30}
	}
	first, other := write(t, g, m.Encode("It was"), options(1)), write(t, g, m.Encode("It was"), options(2))
	if first.Text == other.Text || len(first.Tokens) == 0 {
		t.Errorf("seeds 1 and 2 write %q and %q", first.Text, other.Text)
	}
	write(t, g, m.Encode("It is another text that is longer"), options(1))
	if again := write(t, g, m.Encode("It was"), options(1)); again.Text != first.Text {
		t.Errorf("seed 1 wrote %q, and later %q", first.Text, again.Text)
	}
	for _, from := range []string{path, saved} {
		m, err := Open(from, 3)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		g, err := m.NewGenerator()
		if err != nil {
			t.Fatal(err)
		}
		if r := write(t, g, m.Encode("It was"), options(1)); r.Text != first.Text || r.Finish != first.Finish {
			t.Errorf("%s: wrote %q, before %q", filepath.Base(from), r.Text, first.Text)
		}
	}
}

// A text ends before the first of its stop strings, wherever tokens are divided, and after as many tokens as are asked
// for.
func TestEnds(t *testing.T) {
	m, g := open(t, measuretest.Packed(t, measuretest.Checkpoint(t, measuretest.Config(64), about)))
	o := Options{Options: sampling.Options{Temperature: 0.7, Seed: 5}, Tokens: 40}
	prompt := m.Encode("It")
	whole := write(t, g, prompt, o)
	if whole.Finish != Length || len(whole.Tokens) != 40 {
		t.Fatalf("%+v", whole)
	}
	runes := []rune(whole.Text)
	for _, at := range []int{0, 5, 20} {
		o.Stop = []string{"never written", string(runes[at : at+3]), string(runes[at+1 : at+3])}
		want := whole.Text[:strings.Index(whole.Text, o.Stop[1])]
		if second := strings.Index(whole.Text, o.Stop[2]); second < len(want) {
			want = whole.Text[:second]
		}
		if strings.ContainsRune(o.Stop[1], utf8.RuneError) {
			continue // no stop string has the bytes that the model wrote
		}
		if r := write(t, g, prompt, o); r.Text != want || r.Finish != Stop || len(r.Tokens) >= 40 {
			t.Errorf("stop %q: wrote %q, want %q of %q (%s)", o.Stop, r.Text, want, whole.Text, r.Finish)
		}
	}
	o.Stop, o.Tokens = nil, 1
	if r := write(t, g, prompt, o); len(r.Tokens) != 1 || r.Tokens[0] != whole.Tokens[0] {
		t.Errorf("one token: %+v", r)
	}
	o.Tokens = 0
	if r := write(t, g, prompt, o); r.Finish == Length {
		t.Errorf("without a limit: %+v", r)
	}
}

// Rows of the codebook behind the tokenizer's last token are never written.
func TestNoTokenOfPadding(t *testing.T) {
	c := measuretest.Config(400)
	c.Vocab = 600
	m, g := open(t, measuretest.Packed(t, measuretest.Checkpoint(t, c, about)))
	written := 0
	for seed := range uint64(3) {
		o := Options{Options: sampling.Options{Temperature: 100, Seed: seed}}
		r := write(t, g, m.Encode("It"), o)
		if written += len(r.Tokens); len(r.Tokens) > 0 && slices.Max(r.Tokens) > 255 {
			t.Errorf("token %d", slices.Max(r.Tokens))
		}
	}
	if written < 20 {
		t.Errorf("%d tokens are too few to tell", written)
	}
}

// A writer gives the same text however its bytes are divided, and no piece has a part of a character or of a stop
// string.
func TestWriter(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for text, c := range map[string]struct {
		stop []string
		want string
	}{
		"a é 漢字 😀.":              {nil, "a é 漢字 😀."},
		"broken \xf0\x9f\x98!":   {nil, "broken \uFFFD\uFFFD\uFFFD!"},
		"ends in \xe6\xbc":       {nil, "ends in \uFFFD\uFFFD"},
		"one\n\nuser: two":       {[]string{"\n\nuser:", "never"}, "one"},
		"one\n\nus: two\n\nuse":  {[]string{"\n\nuser:"}, "one\n\nus: two\n\nuse"},
		"aaab漢字c":                {[]string{"漢字c", "aab"}, "a"},
		"😀😀 stop":                {[]string{"😀 stop"}, "😀"},
		"nothing stops here":     {[]string{"", "herein"}, "nothing stops here"},
		"the first: xy, then yz": {[]string{"yz", "xy"}, "the first: "},
	} {
		for range 50 {
			w := writer{stop: c.stop}
			got := ""
			for rest := []byte(text); len(rest) > 0 && !w.stopped; {
				n := 1 + random.IntN(min(3, len(rest)))
				piece := w.write(rest[:n])
				rest = rest[n:]
				if strings.Count(piece, "\uFFFD") > strings.Count(c.want, "\uFFFD") {
					t.Errorf("%q: piece %q", text, piece)
				}
				got += piece
			}
			if got += w.end(); got != c.want {
				t.Fatalf("%q, stop %q: wrote %q, want %q", text, c.stop, got, c.want)
			}
		}
	}
	w := writer{stop: []string{"\n\nuser:"}}
	if piece := w.write([]byte("yes\n\nuse")); piece != "yes" {
		t.Errorf("%q is shown before it is known whether the text stops", piece)
	}
	if piece := w.write([]byte("d it")); piece != "\n\nused it" {
		t.Errorf("then %q", piece)
	}
}

// A prompt that is too long, an end of ctx and an error of emit are told, and leave the generator as it is needed.
func TestGeneratorFails(t *testing.T) {
	m, g := open(t, measuretest.Packed(t, measuretest.Checkpoint(t, measuretest.Config(64), about)))
	o := Options{Options: sampling.Options{Temperature: 1}, Tokens: 20}
	want := write(t, g, m.Encode("It"), o)
	if _, err := g.Generate(t.Context(), m.Encode(strings.Repeat("x", 65)), o, nil); !errors.Is(err,
		inference.ErrContextFull) || !strings.Contains(err.Error(), "65 tokens, and the model's context is 64") {
		t.Errorf("a long prompt: %v", err)
	}
	if r := write(t, g, m.Encode(strings.Repeat("x", 64)), o); len(r.Tokens) != 1 || r.Finish != ContextFull {
		t.Errorf("a prompt that fills the context: %+v", r)
	}
	if _, err := g.Generate(t.Context(), nil, o, nil); err == nil {
		t.Error("no token at all is continued")
	}
	_, err := g.Generate(t.Context(), []int32{300}, o, nil)
	if err == nil || !strings.Contains(err.Error(), "vocabulary") {
		t.Errorf("token 300: %v", err)
	}
	o.TopP = 2
	if _, err := g.Generate(t.Context(), m.Encode("It"), o, nil); err == nil {
		t.Error("top-p 2 is taken")
	}
	o.TopP = 0
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	r, err := g.Generate(ctx, m.Encode("It"), o, func(Piece) error { cancel(gone); return nil })
	if !errors.Is(err, gone) || len(r.Tokens) != 1 || r.Tokens[0] != want.Tokens[0] {
		t.Errorf("an end of ctx: %+v, %v", r, err)
	}
	if _, err := g.Generate(t.Context(), m.Encode("It"), o, func(Piece) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("an error of emit: %v", err)
	}
	if r := write(t, g, m.Encode("It"), o); r.Text != want.Text {
		t.Errorf("after errors: wrote %q, before %q", r.Text, want.Text)
	}
}

// What is no model of a known tokenizer is refused, with its reason.
func TestOpenRefuses(t *testing.T) {
	pack := func(tokenizer string, mix float64) string {
		p := about
		p.Tokenizer, p.Mix = tokenizer, mix
		return measuretest.Checkpoint(t, measuretest.Config(16), p)
	}
	text := filepath.Join(t.TempDir(), "model.bit2")
	if err := os.WriteFile(text, []byte("no model"), 0o644); err != nil {
		t.Fatal(err)
	}
	half := measuretest.Packed(t, pack("bytes", 1))
	if err := os.Truncate(half, 2000); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		text:                               "is text: name the checkpoint",
		half:                               "truncated",
		measuretest.Packed(t, pack("", 1)): "does not name its tokenizer",
		pack("gpt2", 1):                    "tokenizer gpt2 has 50257 tokens, and the model knows 257",
		pack("bytes", 0.5):                 "not ±1 yet",
		filepath.Join(t.TempDir(), "none"): "no such file",
		t.TempDir():                        "folder",
	} {
		m, err := Open(path, 1)
		if err == nil {
			m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
