package garbage

import (
	"cmp"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/stage"
)

// initial finds the checkpoint that a training began from, and its state, in the record of the job.
var initial = regexp.MustCompile(`"init_(?:state_)?digest":"([0-9a-f]{64})"`)

// thin unnames checkpoints of finished runs: all but the last keep ones and the best one of each run. It leaves the
// checkpoints that an unfinished run or job names, and those that another training began from.
func (n *naming) thin(keep int) error {
	j := journal.Open(n.dir)
	runs, err := j.Runs()
	if err != nil {
		return err
	}
	needed := naming{dir: n.dir, named: map[string]bool{}}
	spare := map[string]bool{}
	for _, run := range runs {
		ended, err := j.Read(run, event.RunFinished{}.Kind())
		if err != nil {
			return err
		}
		if len(ended) == 0 {
			if err := needed.run(j.RunDir(run)); err != nil {
				return err
			}
			needed.startsFrom(filepath.Join(j.RunDir(run), "launcher", "definition.json"))
			continue
		}
		if err := sortCheckpoints(j, run, keep, needed.named, spare); err != nil {
			return err
		}
	}
	if err := needed.unfinishedJobs(); err != nil {
		return err
	}
	for name := range n.named {
		b, err := os.ReadFile(filepath.Join(n.dir, "jobs", name[:2], name, "record.msgpack"))
		if err != nil {
			continue // no job, or one that is kept already
		}
		for _, began := range initial.FindAllSubmatch(b, -1) {
			needed.named[string(began[1])] = true
		}
	}
	for name := range spare {
		if !needed.named[name] {
			delete(n.named, name)
		}
	}
	return nil
}

// checkpointPath finds the path of a checkpoint to start from in a definition.
var checkpointPath = regexp.MustCompile(`"([^"]+\.(?:safetensors|pt))"`)

// startsFrom names the checkpoints whose paths an unfinished run's definition contains, and the states beside them.
// Such a path may be a link into another run.
func (n *naming) startsFrom(definition string) {
	b, _ := os.ReadFile(definition) // one that is lost names nothing
	for _, path := range checkpointPath.FindAllSubmatch(b, -1) {
		model := string(path[1])
		for _, path := range []string{model, strings.TrimSuffix(model, filepath.Ext(model)) + ".state.safetensors"} {
			if real, err := filepath.EvalSymlinks(path); err == nil {
				n.take([]byte(real))
			}
		}
	}
}

// sortCheckpoints tells the checkpoints of a run that are kept from those that can go.
func sortCheckpoints(j journal.Journal, run string, keep int, kept, spare map[string]bool) error {
	all, err := journal.Bodies[event.CheckpointSaved](j, run)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b event.CheckpointSaved) int { return cmp.Compare(b.Step, a.Step) })
	best, lowest := -1, math.Inf(1)
	for i, c := range all {
		if score, ok := stage.ByStep().Score(c); ok && score <= lowest { // of equal ones the first, which comes last here
			best, lowest = i, score
		}
	}
	for i, c := range all {
		to := spare
		if i < keep || i == best {
			to = kept
		}
		to[c.Model.Digest], to[c.State.Digest] = true, true
	}
	return nil
}
