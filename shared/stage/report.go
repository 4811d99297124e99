package stage

import (
	"encoding/json"

	"bitnet1/shared/artifact"
)

// WriteJSON makes an artifact of v as indented JSON under the given file name.
func (j *Job[P]) WriteJSON(kind, name string, v any) (artifact.Ref, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return artifact.Ref{}, err
	}
	w, err := j.Create(kind, "application/json", name)
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	if _, err := w.Write(append(b, '\n')); err != nil {
		return artifact.Ref{}, err
	}
	return w.Commit()
}
