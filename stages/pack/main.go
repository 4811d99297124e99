// Command pack is the stage that packs a checkpoint into a .bit2 file: one bit a weight, a few for the codebook of a
// v77, with float16 scales and thresholds. It reads the file back before it announces it. Its command huggingface
// writes a packed model as a folder that Hugging Face's transformers loads.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
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
		Threads: true, Commands: []*cli.Command{huggingFaceCommand()},
		Emits: []event.Body{event.PackWritten{}},
		Results: []results.Result{{
			Kind:     event.PackWritten{}.Kind(),
			Headline: "checkpoint {step} packed: {pack.size:bytes}",
			Columns: []results.Column{{
				Key: "pack_bytes", Name: ".bit2", Value: "{pack.size:bytes}", Better: results.Lower,
				About: "size of the packed model: one bit a weight, codebook_bits in the codebook",
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
	if err := readBack(path, job.Host.Threads); err != nil {
		return fmt.Errorf("reading back %s: %w", ref, err)
	}
	return job.Emit(ctx, event.PackWritten{Step: int(saved.Step), Model: in.Model, Pack: ref, Tokenizer: in.Tokenizer})
}

func write(job *stage.Job[Params], saved *checkpoint.File) (artifact.Ref, error) {
	var test *bit2.SelfTest
	if bit2.Version(saved.Config, saved.Provenance) > 1 {
		err := onCPU(saved, bit2.TestedTokens(saved.Config), job.Host.Threads,
			func(m *model.Model, settings model.Settings) (err error) {
				test, err = bit2.NewSelfTest(m, settings)
				return err
			})
		if err != nil {
			return artifact.Ref{}, stage.Permanent(err)
		}
	}
	w, err := job.Create("bit2", "application/x-bit2", fmt.Sprintf("step-%06d.bit2", saved.Step))
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	if err := bit2.Write(w, saved.Config, saved.Provenance, saved.Parameters(), test); err != nil {
		return artifact.Ref{}, stage.Permanent(err)
	}
	return w.Commit()
}

// readBack reads all of a packed model, and makes its self-test if it has one.
func readBack(path string, threads int) error {
	f, err := bit2.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	test, err := f.SelfTest()
	if err != nil {
		return err
	}
	if test != nil {
		return onCPU(f, len(test.Tokens), threads, test.Check)
	}
	for _, err := range f.Parameters() {
		if err != nil {
			return err
		}
	}
	return nil
}

// onCPU calls f with the model of a file, which computes one sequence of seq tokens.
func onCPU(file interface {
	Inference(dev kernels.Device, batch, seq int) (*model.Model, model.Settings, error)
}, seq, threads int, f func(*model.Model, model.Settings) error) error {
	device := cpu.New(cpu.Options{Workers: threads})
	defer device.Close()
	m, settings, err := file.Inference(device, 1, seq)
	if err != nil {
		return err
	}
	return f(m, settings)
}
