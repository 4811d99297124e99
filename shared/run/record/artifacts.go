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

// Made lists the artifacts that the job made for its i-th output. The output may mention others: inputs of the job, and
// artifacts of earlier outputs, as a checkpoint names the one before.
func (r *Record) Made(i int) []artifact.Ref {
	if r.makers == nil {
		r.makers, r.looked = map[artifact.Ref]int{}, 0
	}
	for ; r.looked <= i; r.looked++ {
		for _, ref := range Mentioned(r.Outputs[r.looked].Body) {
			if _, earlier := r.makers[ref]; !earlier {
				r.makers[ref] = r.looked
			}
		}
	}
	return slices.DeleteFunc(Mentioned(r.Outputs[i].Body), func(ref artifact.Ref) bool {
		return r.makers[ref] != i || slices.Contains(r.Inputs, ref.Digest)
	})
}

// Own are all artifacts that the job has made.
func (r *Record) Own() (refs []artifact.Ref) {
	for i := range r.Outputs {
		refs = append(refs, r.Made(i)...)
	}
	return refs
}
