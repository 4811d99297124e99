package lineage

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
)

// Rows are rows of a source, numbered from 0.
type Rows struct {
	Source string     `json:"source"`
	Count  int64      `json:"count"`
	Ranges [][2]int64 `json:"ranges"` // first and last row of each range, ascending
}

// rowsOf sorts rows into ranges. A row that is there twice counts once.
func rowsOf(source string, rows []int64) *Rows {
	slices.Sort(rows)
	rows = slices.Compact(rows)
	r := &Rows{Source: source, Count: int64(len(rows)), Ranges: [][2]int64{}}
	for _, row := range rows {
		if last := len(r.Ranges) - 1; last >= 0 && r.Ranges[last][1] == row-1 {
			r.Ranges[last][1] = row
		} else {
			r.Ranges = append(r.Ranges, [2]int64{row, row})
		}
	}
	return r
}

// String is such as "rows 0–11, 13"; of many ranges the first ones.
func (r Rows) String() string {
	const most = 4
	var parts []string
	for i, part := range r.Ranges {
		if i == most {
			parts = append(parts, "…")
			break
		}
		if part[0] == part[1] {
			parts = append(parts, fmt.Sprint(part[0]))
		} else {
			parts = append(parts, fmt.Sprintf("%d–%d", part[0], part[1]))
		}
	}
	if r.Count == 1 {
		return "row " + strings.Join(parts, ", ")
	}
	return "rows " + strings.Join(parts, ", ")
}

// addRows reads from token batches which rows of their sources became documents and, if the artifact that was asked for
// is a shard, which rows are in it.
func (f *finder) addRows() {
	for i := range f.g.Jobs {
		job := &f.g.Jobs[i]
		if len(job.Sources) != 1 || job.record == nil {
			continue
		}
		source := f.g.source(job.Sources[0])
		for _, out := range job.record.Outputs {
			var written event.TokensWritten
			if out.Kind != written.Kind() || event.Unmarshal(out.Body, &written) != nil {
				continue
			}
			source.Read = &Read{Rows: written.Rows, Documents: written.Documents, Nulls: written.Nulls,
				Filtered: written.Filtered, Odd: written.Odd}
			var err error
			if source.Rows, err = f.h.rowsOfBatch(written); err != nil {
				source.Problem = err.Error()
			}
		}
	}
	asked := &f.g.Artifacts[0]
	if asked.Kind != "shard" || !asked.There {
		return
	}
	var err error
	if asked.Rows, err = f.h.rowsOfShard(asked, f.g.job(asked.Job)); err != nil {
		asked.Problem = err.Error()
	}
}

// rowsOfBatch are the rows of a token batch, whose documents are all of one source. A batch that is gone has none.
func (h *History) rowsOfBatch(written event.TokensWritten) (*Rows, error) {
	path := h.path(written.Batch)
	if path == "" {
		return nil, nil
	}
	b, err := dataset.OpenBatch(path)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	rows := make([]int64, b.Len())
	for i := range rows {
		d, _, err := b.Document(i)
		if err != nil {
			return nil, err
		}
		rows[i] = d.Row
	}
	return rowsOf(written.Source, rows), nil
}

// rowsOfShard are the rows whose documents lie in a shard, in whole or in part, by source. The manifest of the job that
// made the shard says of which sources.
func (h *History) rowsOfShard(shard *Artifact, job *Job) ([]Rows, error) {
	if job == nil || job.record == nil {
		return nil, nil
	}
	var sealed event.DatasetSealed
	for _, out := range job.record.Outputs {
		if out.Kind == sealed.Kind() && event.Unmarshal(out.Body, &sealed) != nil {
			return nil, nil
		}
	}
	manifest := h.path(sealed.Manifest)
	if manifest == "" {
		return nil, nil
	}
	data, m, err := dataset.Load(manifest, func(s dataset.Shard) (string, error) {
		if path := h.path(artifact.Ref{Digest: s.Digest}); path != "" {
			return path, nil
		}
		return filepath.Join(filepath.Dir(manifest), s.Name), nil
	})
	if err != nil {
		return nil, err
	}
	defer data.Close()
	bySource := make([][]int64, len(m.Sources))
	for _, split := range []struct {
		shards []dataset.Shard
		*dataset.Split
	}{{m.Splits.Train.Shards, data.Train}, {m.Splits.Validation.Shards, data.Validation}} {
		first := 0
		for _, s := range split.shards {
			for i := first; s.Digest == shard.Digest && i < first+int(s.Sequences); i++ {
				ranges, err := split.Ranges(i)
				if err != nil {
					return nil, err
				}
				for _, r := range ranges {
					bySource[r.Source] = append(bySource[r.Source], r.Row)
				}
			}
			first += int(s.Sequences)
		}
	}
	var all []Rows
	for i, rows := range bySource {
		if len(rows) > 0 {
			all = append(all, *rowsOf(m.Sources[i].Name, rows))
		}
	}
	return all, nil
}

// parametersOf are the parameters of a job as keys and values that flags take.
func parametersOf(job *Job) map[string]string {
	var all map[string]any
	values := map[string]string{}
	if json.Unmarshal(job.Parameters, &all) != nil {
		return values
	}
	for key, value := range all {
		values[key] = param.Text(value)
	}
	return values
}
