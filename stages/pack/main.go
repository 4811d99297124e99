// Command pack is the stage that packs a checkpoint into a .bit2 file: one bit a weight, with float16 scales and
// thresholds. It reads the file back before it announces it.
package main

import (
	"context"
	"fmt"
	"os"

	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

// Params are the stage's parameters: there are none.
type Params struct{}

func main() {
	os.Exit(stage.Main(stage.Spec[Params, event.CheckpointSaved]{
		Name:    "pack",
		About:   "pack a checkpoint into a .bit2 file: one bit a weight",
		Example: "pack run --in model/step-000600.safetensors --out packed",
		Version: "1",
		Work:    stage.Deterministic(pack),
		Files:   stage.BareCheckpoints,
		Choice:  stage.ByStep(),
		Emits:   []event.Body{event.PackWritten{}},
		Results: []results.Result{{
			Kind:     event.PackWritten{}.Kind(),
			Headline: "checkpoint {step} packed: {pack.size:bytes}",
			Columns: []results.Column{{
				Key: "pack_bytes", Name: ".bit2", Value: "{pack.size:bytes}", Better: results.Lower,
				About: "size of the packed model, one bit a weight",
			}},
		}},
	}, os.Args))
}

func pack(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved) error {
	path, err := job.Path(in.Model)
	if err != nil {
		return err
	}
	saved, err := checkpoint.Open(path)
	if err != nil {
		return stage.Permanent(err)
	}
	defer saved.Close()
	if saved.Mix < 1 { // bonsai: the weights are not ±1 yet, which is no error
		job.Log.Warn("nothing is packed: the weights are not ±1 yet", "step", saved.Step, "mix", saved.Mix)
		return nil
	}
	ref, err := write(job, saved)
	if err != nil {
		return err
	}
	if path, err = job.Path(ref); err != nil {
		return err
	}
	if err := readBack(path); err != nil {
		return fmt.Errorf("reading back %s: %w", ref, err)
	}
	return job.Emit(ctx, event.PackWritten{Step: int(saved.Step), Model: in.Model, Pack: ref})
}

func write(job *stage.Job[Params], saved *checkpoint.File) (artifact.Ref, error) {
	w, err := job.Create("bit2", "application/x-bit2", fmt.Sprintf("step-%06d.bit2", saved.Step))
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	if err := bit2.Write(w, saved.Config, saved.Provenance, saved.Parameters(), nil); err != nil {
		return artifact.Ref{}, stage.Permanent(err)
	}
	return w.Commit()
}

// readBack reads all of a packed model.
func readBack(path string) error {
	f, err := bit2.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, err := range f.Parameters() {
		if err != nil {
			return err
		}
	}
	return nil
}
