package stage

import (
	"context"
	"fmt"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
)

// Files is what a user named on the command line of a one-shot run.
type Files struct {
	context.Context          // ends when the user interrupts
	In              []string // --in, in order
	Dataset         string   // --dataset: a manifest, for stages that need one beside their input

	folder *artifact.Folder
}

// Add makes the file at path an input artifact.
func (f *Files) Add(kind, mediaType, path string) (artifact.Ref, error) {
	return f.folder.Add(kind, mediaType, path)
}

// AddDataset makes the manifest named by --dataset an input artifact.
func (f *Files) AddDataset() (artifact.Ref, error) {
	if f.Dataset == "" {
		return artifact.Ref{}, usageError{fmt.Errorf("this stage needs a dataset: add --dataset MANIFEST (its shards beside it)")}
	}
	return f.Add("manifest", "application/json", f.Dataset)
}

// Checkpoints makes an event of every checkpoint that the command line names,
// with the dataset of --dataset. It is the Files of stages that answer
// checkpoints and need their dataset.
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
