package stage

import (
	"fmt"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
)

// This file is for the Spec of stages that answer checkpoints.

// Checkpoints makes an event of every checkpoint that the command line names, with the dataset of --dataset. It is the
// Files of stages that answer checkpoints and need their dataset.
func Checkpoints(in *Files) ([]event.CheckpointSaved, error) {
	manifest, err := in.AddDataset()
	if err != nil {
		return nil, err
	}
	all, err := BareCheckpoints(in)
	for i := range all {
		all[i].Manifest = manifest
	}
	return all, err
}

// OnDataset is the OnDataset of stages whose Files is Checkpoints.
func OnDataset(in event.CheckpointSaved, manifest artifact.Ref) event.CheckpointSaved {
	in.Manifest = manifest
	return in
}

// BareCheckpoints is Checkpoints for stages that need no dataset.
func BareCheckpoints(in *Files) ([]event.CheckpointSaved, error) {
	var all []event.CheckpointSaved
	for _, file := range in.In {
		ref, err := in.Add("checkpoint", "application/vnd.safetensors", file)
		if err != nil {
			return nil, err
		}
		all = append(all, event.CheckpointSaved{Model: ref})
	}
	return all, nil
}

// ByStep is the Choice of stages that answer checkpoints.
func ByStep() *Choice[event.CheckpointSaved] {
	return &Choice[event.CheckpointSaved]{
		Noun: "checkpoint", Number: "step", Of: func(c event.CheckpointSaved) int { return c.Step },
		Needs: func(c event.CheckpointSaved) artifact.Ref { return c.Model },
		Score: func(c event.CheckpointSaved) (float64, bool) {
			// Without a validation sample the loss is NaN, or 0 in an event that lacks it. Weights of a blend are not ±1 yet.
			return c.ValidationBits, c.ValidationBits > 0 && c.Blend == 0
		},
		NoBest: func(all []event.CheckpointSaved) string {
			blended := 0
			for _, c := range all {
				if c.Blend > 0 {
					blended++
				}
			}
			if blended > 0 {
				return fmt.Sprintf("with a validation loss and weights that are all ±1 (%d of %d are from before "+
					"the end of the annealing)",
					blended, len(all))
			}
			return "with a validation loss (no validation split, or validation_sequences 0), so none is the best"
		},
	}
}
