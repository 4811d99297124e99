package stage

import (
	"encoding/json"

	"bitnet1/shared/run/artifact"
)

// WriteJSON makes an artifact of v as indented JSON under the given file name.
func (j *Job[P]) WriteJSON(kind, name string, v any) (artifact.Ref, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return artifact.Ref{}, err
	}
	return artifact.Put(j, kind, "application/json", name, append(b, '\n'))
}
