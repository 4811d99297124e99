package stage

import (
	"context"
	"fmt"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
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
		return artifact.Ref{}, command.UsageError(
			fmt.Errorf("this stage needs a dataset: add --dataset MANIFEST (its shards beside it)"))
	}
	return f.Add("manifest", "application/json", f.Dataset)
}
