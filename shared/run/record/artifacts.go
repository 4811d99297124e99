package record

import (
	"maps"
	"slices"

	"github.com/vmihailenco/msgpack/v5"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
)

// Mentioned finds the artifact references in an event's body: maps with a digest, a kind and a name. Bodies of kinds
// that this program does not know are searched as well.
func Mentioned(body []byte) []artifact.Ref {
	var fields map[string]msgpack.RawMessage
	if event.Unmarshal(body, &fields) != nil {
		return nil
	}
	var refs []artifact.Ref
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		var ref artifact.Ref
		if event.Unmarshal(fields[name], &ref) == nil && digest.Valid(ref.Digest) && ref.Kind != "" && ref.Name != "" {
			refs = append(refs, ref)
		}
	}
	return refs
}

// Made lists the artifacts of an output that the job itself has made.
func (r *Record) Made(out Output) []artifact.Ref {
	return slices.DeleteFunc(Mentioned(out.Body),
		func(ref artifact.Ref) bool { return slices.Contains(r.Inputs, ref.Digest) })
}

// Own are all artifacts that the job has made.
func (r *Record) Own() (refs []artifact.Ref) {
	for _, out := range r.Outputs {
		refs = append(refs, r.Made(out)...)
	}
	return refs
}
