// Command continue is a stage of one's own: it has every checkpoint that is saved continue a validation text.
package main

import (
	"context"
	"os"
	"slices"

	"bitnet1/shared/measure"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

type params struct {
	Prompt int `json:"prompt" usage:"tokens of the text that the model is given; it writes the rest of the sequence"`
}

type continuationWritten struct {
	Step  int          `msgpack:"step"`
	Right float64      `msgpack:"right"` // share of the tokens it wrote that are the text's own, 0 to 1
	Text  artifact.Ref `msgpack:"text"`
}

func (continuationWritten) Kind() string       { return "continuation.written" }
func (e continuationWritten) Inputs() []string { return []string{e.Text.Digest} }

func main() {
	os.Exit(stage.Main(stage.Spec[params, event.CheckpointSaved]{
		Name: "continue", About: "have a checkpoint continue a validation text", Version: "1",
		Example:  "continue run --run v76-nano-8799682f --checkpoint all",
		Defaults: params{Prompt: 32}, Work: continueText, Emits: []event.Body{continuationWritten{}},
		Files: stage.Checkpoints, OnDataset: stage.OnDataset, Choice: stage.ByStep(), Threads: true, Device: true,
		Results: []results.Result{{
			Kind: "continuation.written", Headline: "checkpoint {step} wrote: {right:.1%} of the tokens are the text's own",
			Columns: []results.Column{{
				Key: "continued", Name: "continued", Value: "{right:.1%}", Better: results.Higher,
				About: "share of the tokens it wrote that are the text's own",
			}},
		}},
	}, os.Args))
}

func continueText(ctx context.Context, job *stage.Job[params], in event.CheckpointSaved) error {
	s, err := measure.Open(job, in, 1)
	if err != nil {
		return err
	}
	defer s.Close()
	if p := job.Params.Prompt; p < 1 || p >= s.Seq {
		return stage.Permanentf("prompt is %d: a sequence has %d tokens: use 1 to %d", p, s.Seq, s.Seq-1)
	}
	tokens, _, err := s.Sequences(0, 1)
	own, right := slices.Clone(tokens), 0
	for k := job.Params.Prompt; err == nil && k < s.Seq && ctx.Err() == nil; k++ {
		var best []int32 // the most probable token after each position
		if best, err = s.Model.Greedy(tokens, s.Settings); err == nil {
			if tokens[k] = best[k-1]; tokens[k] == own[k] {
				right++
			}
		}
	}
	if err != nil || ctx.Err() != nil {
		return err
	}
	text, err := job.WriteJSON("text", s.Name("text"), s.Text(tokens))
	if err != nil {
		return err
	}
	share := float64(right) / float64(s.Seq-job.Params.Prompt)
	return job.Emit(ctx, continuationWritten{Step: int(s.Saved.Step), Right: share, Text: text})
}
