package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/results"
)

// Details is what there is to see of one run.
type Details struct {
	Run        string            `json:"run"`
	Parameters map[string]string `json:"parameters"`
	Stages     []Stage           `json:"stages"`
	Tables     []Table           `json:"tables"`
	Heads      []Artifact        `json:"heads"` // of each checkpoint: see HeatMap
	Texts      []Artifact        `json:"texts"` // that stages wrote about checkpoints
	Problem    string            `json:"problem,omitempty"`
}

// Stage is how far a stage of the run is. It counts events, which are its jobs.
type Stage struct {
	Name   string   `json:"name"`
	State  string   `json:"state"`
	Done   int      `json:"done"`
	Total  int      `json:"total"`
	Causes []string `json:"causes,omitempty"` // of failed jobs
}

// Table is a table of results.
type Table struct {
	Row     Column     `json:"row"`
	Columns []Column   `json:"columns"`
	Rows    []TableRow `json:"rows"`
}

// TableRow is a row of it, a checkpoint for example.
type TableRow struct {
	Name  string          `json:"name"`
	Marks []string        `json:"marks,omitempty"` // such as best
	With  string          `json:"with,omitempty"`  // the parameters that differ from the run's
	Cells map[string]Cell `json:"cells"`           // by the keys of columns
}

// Artifact is a file that belongs to a checkpoint.
type Artifact struct {
	Step   int    `json:"step"`
	Stage  string `json:"stage"`
	With   string `json:"with,omitempty"`
	Name   string `json:"name"`
	Type   string `json:"type"` // media type
	Digest string `json:"digest"`
}

// ErrUnknown is the error of a run or an artifact that is not there.
var ErrUnknown = errors.New("there is no such run")

// Details reads the details of a run.
func (x *Index) Details(name string) (d Details, err error) {
	x.mu.Lock()
	r := x.runs[name]
	x.mu.Unlock()
	if r == nil {
		return d, ErrUnknown
	}
	d = Details{Run: name, Stages: []Stage{}, Tables: []Table{}, Heads: []Artifact{}, Texts: []Artifact{}}
	var problems []error
	j := x.journal.Telling(func(err error) { problems = append(problems, err) })
	if d.Parameters, err = overview.Parameters(j, x.store, name); err != nil {
		problems, d.Parameters = append(problems, err), map[string]string{}
	}
	declared, err := results.Declared(j, name, nil)
	if err != nil {
		return d, err
	}
	tables, err := results.Read(j, name, declared)
	if err != nil {
		return d, err
	}
	for _, t := range tables {
		d.Tables = append(d.Tables, tableOf(t))
	}
	events, err := j.All(name)
	if err != nil {
		return d, err
	}
	for _, e := range events {
		d.addArtifacts(e)
	}
	if d.Stages, err = x.stages(j, name, declared, events); err != nil {
		return d, err
	}
	if err := errors.Join(problems...); err != nil {
		d.Problem = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return d, nil
}

func tableOf(t *results.Table) Table {
	all := Table{Row: columnOf(t.Row), Columns: []Column{}, Rows: []TableRow{}}
	for _, c := range t.Columns {
		all.Columns = append(all.Columns, columnOf(c))
	}
	for _, r := range t.InOrder() {
		row := TableRow{r.Name, r.Marks, results.Label(r.Overrides), map[string]Cell{}}
		for key, c := range r.Cells {
			row.Cells[key] = cellOf(c)
		}
		all.Rows = append(all.Rows, row)
	}
	return all
}

// addArtifacts takes the artifacts of an event that can be looked at: the pointer health of heads, and texts.
func (d *Details) addArtifacts(e event.Envelope) {
	of := Artifact{Stage: e.Stage, With: results.Label(e.Overrides)}
	if probe, err := event.Into[event.ProbeWritten](e); err == nil {
		of.Step, of.Name, of.Type, of.Digest = probe.Step, probe.Health.Name, probe.Health.MediaType, probe.Health.Digest
		d.Heads = append(d.Heads, of)
		return
	}
	var body map[string]any
	if event.Unmarshal(e.Body, &body) != nil || body["step"] == nil {
		return
	}
	if _, err := fmt.Sscan(fmt.Sprint(body["step"]), &of.Step); err != nil {
		return
	}
	for _, value := range body {
		ref, _ := value.(map[string]any)
		kind, _ := ref["kind"].(string)
		of.Name, _ = ref["name"].(string)
		of.Type, _ = ref["media_type"].(string)
		of.Digest, _ = ref["digest"].(string)
		if (kind == "text" || strings.HasPrefix(of.Type, "text/")) && digest.Valid(of.Digest) {
			d.Texts = append(d.Texts, of)
		}
	}
}

// stages counts what the stages of a run have answered.
func (x *Index) stages(j journal.Journal, name string, declared []results.Declaration, events []event.Envelope) (
	[]Stage, error) {
	state, err := overview.State(j, x.dir, name)
	if err != nil {
		return nil, err
	}
	all, kinds := []Stage{}, map[string]int{}
	of := func(stage string) *Stage {
		i := slices.IndexFunc(all, func(s Stage) bool { return s.Name == stage })
		if i < 0 {
			i, all = len(all), append(all, Stage{Name: stage})
		}
		return &all[i]
	}
	done := map[[2]string]bool{}
	for _, e := range events {
		kinds[e.Kind]++
		if started, err := event.Into[event.RunStarted](e); err == nil {
			for _, s := range started.Stages {
				of(s)
			}
		}
		if job, err := event.Into[event.JobFinished](e); err == nil && job.Outcome != event.Failed {
			if at := [2]string{job.Listener, job.Input}; !done[at] {
				done[at] = true
				of(job.Listener).Done++
			}
		}
	}
	failed, err := overview.FailedJobs(j, name)
	if err != nil {
		return nil, err
	}
	for _, f := range failed {
		if s := of(f.Listener); !slices.Contains(s.Causes, f.Cause) {
			s.Causes = append(s.Causes, f.Cause)
		}
	}
	answers := map[string]string{"tokenize": event.SourceAdded{}.Kind()} // it has no results to declare
	for _, d := range declared {
		answers[d.Stage] = d.Answers
	}
	for i := range all {
		s := &all[i]
		s.Total = max(kinds[answers[s.Name]], s.Done)
		s.State = stateOf(*s, state)
	}
	return all, nil
}

// stateOf is the state of a stage, as it is called on the screen of a launcher.
func stateOf(s Stage, run string) string {
	switch {
	case len(s.Causes) > 0:
		return "failed"
	case s.Done == s.Total && s.Total > 0:
		return "done"
	case s.Total == 0 || run == overview.Failed:
		return "waiting"
	case run == overview.Running:
		return "working"
	}
	return run // the stage was at work when that happened
}

// longestText is how much of a text is shown, in bytes.
const longestText = 256 << 10

// Text is the beginning of an artifact.
func (x *Index) Text(digest string) ([]byte, error) {
	f, err := x.artifact(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, longestText))
}

func (x *Index) artifact(of string) (*os.File, error) {
	if !digest.Valid(of) {
		return nil, ErrUnknown
	}
	return x.open(artifact.ObjectPath(x.dir, of))
}

// HeatMap is a number for each attention head of a checkpoint, by layer and then by head. The measures are shares.
type HeatMap struct {
	Layers   int                  `json:"layers"`
	Heads    int                  `json:"heads"`
	Measures map[string][]float64 `json:"measures"` // ipmr, m4 and hdr: see docs/formats/reports.md
	Random   map[string]float64   `json:"random"`   // their baselines
}

// mostHeads bounds a heat map.
const mostHeads = 1 << 14

// HeatMap reads a report of pointer health.
func (x *Index) HeatMap(digest string) (m HeatMap, err error) {
	f, err := x.artifact(digest)
	if err != nil {
		return m, err
	}
	defer f.Close()
	var report struct {
		RandomIPMR float64 `json:"random_ipmr"`
		RandomM4   float64 `json:"random_m4"`
		RandomHDR  float64 `json:"random_hdr"`
		Heads      []struct {
			Layer, Head   int
			IPMR, M4, HDR float64
		} `json:"heads"`
	}
	if err := json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(&report); err != nil {
		return m, fmt.Errorf("artifact %s is no report of pointer health: %w", digest[:8], err)
	}
	for _, h := range report.Heads {
		if h.Layer < 0 || h.Head < 0 || h.Layer >= mostHeads || h.Head >= mostHeads {
			return m, fmt.Errorf("artifact %s: there is no head L%d.H%d", digest[:8], h.Layer, h.Head)
		}
		m.Layers, m.Heads = max(m.Layers, h.Layer+1), max(m.Heads, h.Head+1)
	}
	if m.Layers*m.Heads == 0 || m.Layers*m.Heads > mostHeads {
		return m, fmt.Errorf("artifact %s: it has %d layers of %d heads", digest[:8], m.Layers, m.Heads)
	}
	m.Random = map[string]float64{"ipmr": report.RandomIPMR, "m4": report.RandomM4, "hdr": report.RandomHDR}
	m.Measures = map[string][]float64{}
	for _, name := range []string{"ipmr", "m4", "hdr"} {
		m.Measures[name] = make([]float64, m.Layers*m.Heads)
	}
	for _, h := range report.Heads {
		at := h.Layer*m.Heads + h.Head
		m.Measures["ipmr"][at], m.Measures["m4"][at], m.Measures["hdr"][at] = fine(h.IPMR), fine(h.M4), fine(h.HDR)
	}
	return m, nil
}

// fine is a share in tenths of a percent.
func fine(v float64) float64 { return math.Round(v*1000) / 1000 }
