package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"bitnet1/shared/lm/sampling"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
	"bitnet1/stages/generate/generation"
)

// samplesFormat is the version of the format of *_text.json.
const samplesFormat = "bitnet1.text.v1"

// fixedPrompts are the same for all models, so that their texts can be compared. A change needs a new Version.
var fixedPrompts = []string{"The", "It is not", "Once upon a time"}

// samples is the content of *_text.json.
type samples struct {
	Format    string   `json:"format"`
	Model     string   `json:"model"` // digest
	Step      int64    `json:"step"`
	Tokenizer string   `json:"tokenizer"`
	Sampling  sampled  `json:"sampling"`
	Repeated  *float64 `json:"repeated"` // share of 4-grams of tokens that their continuation has before
	Texts     []sample `json:"texts"`
}

// sampled is how tokens were chosen.
type sampled struct {
	Tokens            int      `json:"most_tokens"`
	Temperature       float64  `json:"temperature"`
	TopK              int      `json:"top_k"`
	TopP              float64  `json:"top_p"`
	MinP              float64  `json:"min_p"`
	RepetitionPenalty float64  `json:"repetition_penalty"`
	Stop              []string `json:"stop"`
	Seed              uint64   `json:"seed"`
}

// sample is a prompt and what the model wrote.
type sample struct {
	Prompt       string            `json:"prompt"`
	PromptTokens int               `json:"prompt_tokens"`
	Text         string            `json:"text"`
	Tokens       int               `json:"tokens"` // of the text
	Finish       generation.Finish `json:"finish"`
}

func (p Params) options() generation.Options {
	return generation.Options{
		Options: sampling.Options{RepetitionPenalty: p.RepetitionPenalty, Temperature: p.Temperature, TopK: p.TopK,
			TopP: p.TopP, MinP: p.MinP, Seed: p.Seed},
		Tokens: p.Tokens, Stop: p.Stop,
	}
}

func (p Params) check() error {
	if p.Tokens < 0 {
		return errors.New("tokens must not be negative")
	}
	return p.options().Validate()
}

// newSamples has the model continue all prompts of p.
func newSamples(ctx context.Context, m *generation.Model, digest string, p Params) (*samples, error) {
	s := &samples{Format: samplesFormat, Model: digest, Step: m.Step, Tokenizer: m.Tokenizer.Name(),
		Sampling: sampled{p.Tokens, p.Temperature, p.TopK, p.TopP, p.MinP, p.RepetitionPenalty,
			append([]string{}, p.Stop...), p.Seed},
		Texts: []sample{}}
	g, err := m.NewGenerator()
	if err != nil {
		return nil, err
	}
	var written [][]int32
	for _, prompt := range p.prompts(m) {
		tokens := m.Encode(prompt)
		r, err := g.Generate(ctx, tokens, p.options(), nil)
		if err != nil {
			return nil, ofPrompt(prompt, err)
		}
		s.Texts = append(s.Texts, sample{generation.Valid(prompt), len(tokens), r.Text, len(r.Tokens), r.Finish})
		written = append(written, r.Tokens)
	}
	s.Repeated = repeated(written)
	return s, nil
}

// ofPrompt says which prompt an error is about.
func ofPrompt(prompt string, err error) error { return fmt.Errorf("prompt %.40q: %w", prompt, err) }

// prompts are the texts to continue: first the fixed ones for which the context has room, or the empty text where the
// tokenizer has no prose, and then those of the user.
func (p Params) prompts(m *generation.Model) (all []string) {
	switch {
	case !p.FixedPrompts:
	case m.Text(m.Encode(fixedPrompts[0])) != fixedPrompts[0]:
		all = []string{""}
	default:
		all = slices.DeleteFunc(slices.Clone(fixedPrompts), func(prompt string) bool {
			return m.Fits(m.Encode(prompt)) != nil
		})
	}
	return append(all, p.Prompts...)
}

func (s *samples) name() string { return fmt.Sprintf("step-%06d_text.json", s.Step) }

func (s *samples) tokens() (n int) {
	for _, t := range s.Texts {
		n += t.Tokens
	}
	return n
}

// repeated is the share of 4-grams that their own continuation has before: seq-rep-4 of Welleck et al. 2020, over all
// continuations. It is nil where no continuation has four tokens.
func repeated(continuations [][]int32) *float64 {
	all, again := 0, 0
	for _, tokens := range continuations {
		seen := map[[4]int32]bool{}
		for i := range max(len(tokens)-3, 0) {
			gram := [4]int32(tokens[i:])
			if all++; seen[gram] {
				again++
			}
			seen[gram] = true
		}
	}
	if all == 0 {
		return nil
	}
	share := float64(again) / float64(all)
	return &share
}

// packs makes an event of every file that --in names.
func packs(in *stage.Files) ([]event.PackWritten, error) {
	var all []event.PackWritten
	for _, file := range in.In {
		ref, err := in.Add("bit2", "application/x-bit2", file)
		if err != nil {
			return nil, err
		}
		all = append(all, event.PackWritten{Pack: ref})
	}
	return all, nil
}

func byStep() *stage.Choice[event.PackWritten] {
	return &stage.Choice[event.PackWritten]{
		Noun: "checkpoint", Number: "step", Of: func(p event.PackWritten) int { return p.Step },
		Needs: func(p event.PackWritten) artifact.Ref { return p.Pack },
		Score: func(event.PackWritten) (float64, bool) { return 0, false },
		NoBest: func([]event.PackWritten) string {
			return "whose pack says how good it is (the table of `runs` does)"
		},
	}
}
