package lineage

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/record"
)

// Of finds where an artifact came from. Where several jobs made the same bytes, one of the given run counts.
func (h *History) Of(sum, run string) (*Graph, error) {
	f := &finder{h: h, g: &Graph{Format: Format, Artifact: sum}}
	ref, known := h.refs[sum]
	if !known {
		return nil, fmt.Errorf("artifact %s: no job and no event that is known here speaks of it", digest.Short(sum))
	}
	f.artifact(ref, run)
	f.addRows()
	return f.g, nil
}

// finder builds a graph from an artifact back to the sources.
type finder struct {
	h *History
	g *Graph
}

// artifact adds an artifact, and all that it came from.
func (f *finder) artifact(ref artifact.Ref, run string) {
	if f.g.artifact(ref.Digest) != nil {
		return
	}
	at := len(f.g.Artifacts)
	f.g.Artifacts = append(f.g.Artifacts, Artifact{Digest: ref.Digest, Kind: ref.Kind, Name: ref.Name, Size: ref.Size,
		There: f.h.path(ref) != ""})
	key := ""
	if makers := f.h.makers(ref.Digest, run); len(makers) > 0 {
		key = f.job(makers[0], run)
	} else if e, ok := f.h.maker(ref.Digest, run); ok {
		key = f.lost(e)
	}
	f.g.Artifacts[at].Job = key
}

// job adds the job of a record, and returns its key.
func (f *finder) job(r *record.Record, run string) string {
	if f.g.job(r.Key) != nil {
		return r.Key
	}
	at := len(f.g.Jobs)
	job := Job{Key: r.Key, Stage: r.Stage, Parameters: json.RawMessage(r.Params), record: r}
	f.g.Jobs = append(f.g.Jobs, job)
	e, ok := f.h.announcement(r.Key, run)
	if ok {
		job.Run = e.Run
		job.Given = f.given(e, r)
		var err error
		if job.answered, err = f.h.answered(e, r.Inputs); err != nil {
			job.Problem = err.Error()
		}
		f.inputs(&job, r.Inputs)
	}
	if len(job.answered) == 0 {
		f.bare(&job, r.Inputs, run)
	}
	f.named(&job, run)
	f.g.Jobs[at] = job
	return r.Key
}

// lost adds the job that announced an event, whose record is gone or damaged, or which a stage did that keeps none.
func (f *finder) lost(e event.Envelope) string {
	if f.g.job(e.Job) != nil {
		return e.Job
	}
	at := len(f.g.Jobs)
	job := Job{Key: e.Job, Stage: e.Stage, Run: e.Run, Given: f.given(e, nil),
		Problem: "its record is gone or damaged, or its stage keeps none: of its parameters only those are known that " +
			"were given, and it cannot be repeated"}
	f.g.Jobs = append(f.g.Jobs, job)
	var err error
	if job.answered, err = f.h.answered(e, nil); err != nil {
		job.Problem += "; " + err.Error()
	}
	f.inputs(&job, nil)
	f.g.Jobs[at] = job
	return e.Job
}

// inputs adds what the answered events mention, of the inputs of the job's record if there is one.
func (f *finder) inputs(job *Job, inputs []string) {
	for _, in := range job.answered {
		job.Answers = in.Kind
		job.Events = append(job.Events, in.ID)
		if in.Kind == (event.SourceAdded{}).Kind() {
			f.source(job, in)
			continue
		}
		for _, ref := range record.Mentioned(in.Body) {
			if inputs != nil && !slices.Contains(inputs, ref.Digest) {
				continue // the job did not depend on it
			}
			job.Artifacts = append(job.Artifacts, ref.Digest)
			f.artifact(ref, job.Run)
		}
	}
}

func (f *finder) source(job *Job, in event.Envelope) {
	s, err := event.Into[event.SourceAdded](in)
	if err != nil {
		job.Problem = err.Error()
		return
	}
	job.Sources = append(job.Sources, in.ID)
	if f.g.source(in.ID) == nil {
		f.g.Sources = append(f.g.Sources, Source{ID: in.ID, Name: s.Name, Path: s.Path, Digest: s.Digest, Size: s.Size,
			Parameters: json.RawMessage(s.Parameters)})
	}
}

// bare adds the inputs of a job of which no event is known: those that are artifacts of jobs that are known.
func (f *finder) bare(job *Job, inputs []string, run string) {
	for _, in := range inputs {
		if ref, known := f.h.refs[in]; known {
			job.Artifacts = append(job.Artifacts, in)
			f.artifact(ref, run)
		} else if in != "" {
			job.Unknown = append(job.Unknown, in)
		}
	}
}

// anyDigest matches what may be the digest of an artifact in parameters: of a checkpoint that training began from, say.
var anyDigest = regexp.MustCompile(`[0-9a-f]{64}`)

// named adds the artifacts that parameters name by their digests.
func (f *finder) named(job *Job, run string) {
	for _, sum := range anyDigest.FindAllString(string(job.Parameters), -1) {
		ref, known := f.h.refs[sum]
		if known && !slices.Contains(job.Artifacts, sum) && !slices.Contains(job.Named, sum) {
			job.Named = append(job.Named, sum)
			f.artifact(ref, run)
		}
	}
}

// given are the parameters of a job that were not defaults: those of the run's definition, and those of a rerun's
// command line.
func (f *finder) given(e event.Envelope, r *record.Record) map[string]string {
	given := map[string]string{}
	def, err := definition.OfRun(f.h.journal, f.h.store, e.Run)
	if err == nil && def != nil {
		var section map[string]any
		if json.Unmarshal(def.Stages[e.Stage], &section) == nil {
			for key, value := range section {
				given[key] = param.Text(value)
			}
		}
	}
	for key, value := range e.Overrides {
		if own, ok := strings.CutPrefix(key, e.Stage+"."); ok {
			given[own] = value
		}
	}
	if r != nil {
		addRecorded(given, r)
	}
	return given
}

// addRecorded takes the values of given parameters from the record of the job, which is right where the two differ, and
// adds the paths of files that the job read.
func addRecorded(given map[string]string, r *record.Record) {
	var keyed, unkeyed map[string]any
	if json.Unmarshal([]byte(r.Params), &keyed) == nil {
		for key := range given {
			if value, ok := keyed[key]; ok {
				given[key] = param.Text(value)
			}
		}
	}
	if r.Unkeyed != "" && json.Unmarshal([]byte(r.Unkeyed), &unkeyed) == nil {
		for key, value := range unkeyed {
			given[key] = param.Text(value)
		}
	}
}
