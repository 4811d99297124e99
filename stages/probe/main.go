// Command probe is the stage that looks inside a checkpoint. The pointer health probe measures where attention heads
// point on validation text. The induction probe measures whether the model copies a sequence of random tokens that it
// has read.
package main

import (
	"context"
	"os"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

func main() {
	os.Exit(stage.Main(stage.Spec[Params, event.CheckpointSaved]{
		Name:     "probe",
		About:    "probe a checkpoint's pointers on text and its induction on repeated random tokens",
		Example:  "probe run --checkpoint model/step-000600.safetensors --text book.txt --out probe",
		Version:  "3",
		Defaults: defaults(), Check: check, Complete: (*Params).complete, OneShot: batches(),
		Work:  stage.Deterministic(probe),
		Files: checkpoints, OnDataset: stage.OnDataset, Choice: stage.ByStep(), Threads: true, Device: true,
		Emits: []event.Body{event.ProbeWritten{}},
		Results: []results.Result{{
			Kind: event.ProbeWritten{}.Kind(),
			Headline: "checkpoint {step} probed: best head L{top_layer}.H{top_head} with IPMR {top_ipmr:.1%}[ " +
				"± {top_ipmr_error:.1%}]" +
				"[ (random key {random_ipmr:.1%})], copied {copy_accuracy:.1%}[ (chance {random_copy_accuracy:.1%})]",
			Columns: []results.Column{
				{Key: "best_head", Name: "best head", Value: "L{top_layer}.H{top_head}",
					About: "layer and attention head with the highest IPMR"},
				{
					Key: "ipmr", Name: "IPMR", Value: "{top_ipmr:.1%}", Better: results.Higher,
					Error: "{top_ipmr_error:.1%}",
					About: "induction pointer match rate of that head: how often it points at the token after an earlier " +
						"occurrence of the present one",
					Baseline: &results.Baseline{
						Key: "random_ipmr", Name: "random", Value: "{random_ipmr:.1%}", About: "IPMR of a random key",
					},
				},
				{
					Key: "copy_accuracy", Name: "copied", Value: "{copy_accuracy:.1%}", Better: results.Higher,
					About: "share of a repeated random sequence that the model predicts", Error: "{copy_accuracy_error:.1%}",
					Baseline: &results.Baseline{
						Key: "random_copy_accuracy", Name: "chance", Value: "{random_copy_accuracy:.1%}",
						About: "share that guesses predict",
					},
				},
			},
		}},
	}, os.Args))
}

// checkpoints makes an event of every checkpoint that the command line names. A dataset is not needed.
func checkpoints(in *stage.Files) ([]event.CheckpointSaved, error) {
	if in.Dataset == "" {
		return stage.BareCheckpoints(in)
	}
	return stage.Checkpoints(in)
}

func probe(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved) error {
	p := job.Params
	subject, on, err := open(job, in)
	if err != nil {
		return err
	}
	defer subject.Close()
	if err := p.checkShow(subject, on); err != nil { // before anything is computed
		return stage.Permanent(err)
	}
	var scores *patternScores
	if p.Heads || in.Manifest.IsZero() {
		scores = newPatternScores(subject)
	}
	total := on.count() + p.Repeats
	counts, err := pointerHealth(ctx, job, subject, on, total)
	if err != nil {
		return err
	}
	health := counts.report()
	if health.Repeated == 0 {
		job.Note("no token comes twice where another follows, so IPMR and M4 say nothing: both are 0")
	}
	induction, err := probeInduction(ctx, job, subject, scores, on.count(), total)
	if err != nil {
		return err
	}
	about := about{Checkpoint: in.Model.Digest, Dataset: in.Manifest.Digest, Step: subject.Saved.Step,
		Documents: subject.Saved.Documents.String(), Text: p.textDigest()}
	if about.Text != "" {
		about.Dataset = ""
	}
	health.about, induction.about = about, about
	written := event.ProbeWritten{
		Step: int(about.Step), Model: in.Model,
		TopLayer: health.Top.Layer, TopHead: health.Top.Head, TopIPMR: health.Top.IPMR, GlobalIPMR: health.GlobalIPMR,
		TopIPMRError: health.Top.IPMRError, RandomIPMR: health.RandomIPMR, RandomGlobalIPMR: health.RandomGlobalIPMR,
		Specialists:  health.Specialists,
		CopyAccuracy: induction.CopyAccuracy, CopyAccuracyError: induction.CopyError,
		RandomCopyAccuracy: induction.RandomCopy,
	}
	if written.Health, err = job.WriteJSON("probe", subject.Name("pointer_health"), health); err != nil {
		return err
	}
	if written.Induction, err = job.WriteJSON("probe", subject.Name("induction"), induction); err != nil {
		return err
	}
	if scores != nil {
		if written.Heads, err = writeHeads(ctx, job, subject, about, counts, scores); err != nil {
			return err
		}
	}
	if p.Show > 0 {
		if err := show(job, subject, on, about, health.Top, &written); err != nil {
			return err
		}
	}
	return job.Emit(ctx, written)
}

// about is the part that all reports begin with.
type about struct {
	Checkpoint string `json:"checkpoint"` // digest
	Dataset    string `json:"dataset"`    // digest of the manifest, of the text that was looked at
	Step       int64  `json:"step"`
	Documents  string `json:"documents"`      // packed or separate, as the checkpoint was trained
	Text       string `json:"text,omitempty"` // digest of a text of the user's
}
