package stage

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"bitnet1/shared/artifact"
)

// Files is what a user named on the command line of a one-shot run.
type Files struct {
	In      []string // --in, in order
	Dataset string   // --dataset: a manifest, for stages that need one beside their input

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

// mentioned finds the artifact references in an event's body: maps with a
// digest, a kind and a name. Bodies of kinds that this program does not know
// are searched as well.
func mentioned(body []byte) []artifact.Ref {
	dec := msgpack.NewDecoder(bytes.NewReader(body))
	v, err := dec.DecodeMap()
	if err != nil {
		return nil
	}
	var refs []artifact.Ref
	for _, value := range v {
		m, ok := value.(map[string]any)
		if !ok {
			continue
		}
		digest, _ := m["digest"].(string)
		kind, _ := m["kind"].(string)
		name, _ := m["name"].(string)
		if artifact.ValidDigest(digest) && kind != "" && name != "" {
			refs = append(refs, artifact.Ref{Digest: digest, Kind: kind, Name: name})
		}
	}
	return refs
}
