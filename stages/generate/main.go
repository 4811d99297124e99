// Command generate is the stage that lets packed models write: it continues fixed prompts, and the user's, with every
// packed model of a run. From a command line it also continues texts on the spot (run), chats (chat), and serves other
// programs (api).
package main

import (
	"context"
	"os"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
	"bitnet1/stages/generate/generation"
)

// Params are the stage's parameters.
type Params struct {
	Prompts           []string `json:"prompts" usage:"texts to continue"`
	FixedPrompts      bool     `json:"fixed_prompts" usage:"continue the stage's own prompts, too: beginnings of prose"`
	Tokens            int      `json:"tokens" usage:"most tokens of a continuation; 0: as many as the context has room for"`
	Temperature       float64  `json:"temperature" usage:"logits are divided by it; 0: the most probable token alone"`
	TopK              int      `json:"top_k" usage:"so many of the most probable tokens remain; 0: all"`
	TopP              float64  `json:"top_p" usage:"the fewest of the most probable tokens remain whose probabilities add up to it; 0 and 1: all"`
	MinP              float64  `json:"min_p" usage:"tokens remain whose probability is at least so many times the largest; 0: all"`
	RepetitionPenalty float64  `json:"repetition_penalty" usage:"above 1: tokens of the text so far become less probable; 0 and 1: none"`
	Stop              []string `json:"stop" usage:"a continuation ends before the first of these texts"`
	Seed              uint64   `json:"seed" usage:"of the random choice of tokens"`
}

func main() {
	defaults := Params{FixedPrompts: true, Tokens: 128, Temperature: 0.8, Seed: 42}
	os.Exit(stage.Main(stage.Spec[Params, event.PackWritten]{
		Name:     "generate",
		About:    "continue prompts with a packed model: samples of every checkpoint, single texts, a chat, an API",
		Example:  `generate run --in packed/step-000600.bit2 --prompt "It was a dark night" --tokens 100`,
		Version:  "1",
		Defaults: defaults,
		Check:    Params.check,
		Work:     stage.Deterministic(generate),
		Files:    packs, Choice: byStep(), Threads: true,
		OneShot:  &stage.OneShot[Params]{Flags: promptFlags(), Overlay: readPrompts, Print: printTexts},
		Commands: []*cli.Command{chatCommand(defaults), apiCommand()},
		Emits:    []event.Body{event.TextWritten{}},
		Results: []results.Result{{
			Kind:     event.TextWritten{}.Kind(),
			Headline: "checkpoint {step} wrote {texts} texts, {tokens} tokens[, {repeated:.1%} of their 4-grams repeated]",
		}},
	}, os.Args))
}

func generate(ctx context.Context, job *stage.Job[Params], in event.PackWritten) error {
	path, err := job.Path(in.Pack)
	if err != nil {
		return err
	}
	m, err := generation.Open(path, job.Host.Threads)
	if err != nil {
		return err
	}
	defer m.Close()
	s, err := newSamples(ctx, m, in.Pack.Digest, job.Params)
	if err != nil {
		return err
	}
	ref, err := job.WriteJSON("text", s.name(), s)
	if err != nil {
		return err
	}
	return job.Emit(ctx, event.TextWritten{Step: int(m.Step), Pack: in.Pack, Text: ref, Texts: len(s.Texts),
		Tokens: s.tokens(), Repeated: s.Repeated})
}
