package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
	"bitnet1/stages/evaluate/tasks"
)

// tasksReport is the content of *_tasks.json.
type tasksReport struct {
	Version    int          `json:"version"`    // of this schema: 1
	Checkpoint string       `json:"checkpoint"` // digest
	Step       int64        `json:"step"`
	Tokenizer  string       `json:"tokenizer"`
	Context    int          `json:"context"` // tokens that the model reads at most
	Tasks      []taskReport `json:"tasks"`
}

type taskReport struct {
	tasks.Result
	Files     string `json:"files"`     // digest
	LeftOut   int    `json:"left_out"`  // examples that have an answer of more tokens than the model reads
	Requests  int    `json:"requests"`  // log-likelihoods that were computed
	Truncated int    `json:"truncated"` // of them, those whose context was longer than the model reads
}

// lastScores remembers the scores of the last model, because a model that is measured on several datasets is a job for
// each.
type lastScores struct {
	mu     sync.Mutex
	of     string // the model and the tasks
	report tasksReport
	name   string // of the report's file
}

// score announces the scores of the model on the tasks of the parameters.
func (l *lastScores) score(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved,
	all []*tasks.Task) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if of := fmt.Sprint(in.Model.Digest, job.Params.TaskDigests, job.Params.TaskLimit); l.of != of {
		r, name, err := scoreTasks(ctx, job, in, all)
		if err != nil {
			return err
		}
		l.of, l.report, l.name = of, r, name
	}
	ref, err := job.WriteJSON("tasks", l.name, l.report)
	if err != nil {
		return err
	}
	return job.Emit(ctx, event.TasksScored{Step: int(l.report.Step), Model: in.Model, Report: ref,
		Scores: l.report.scores()})
}

// scoreTasks scores the model on tasks. name is that of the report's file.
func scoreTasks(ctx context.Context, job *stage.Job[Params], in event.CheckpointSaved, all []*tasks.Task) (
	r tasksReport, name string, err error) {
	subject, err := measure.OpenModel(job, in, 0, job.Params.MicroTokens)
	if err != nil {
		return r, "", err
	}
	defer subject.Close()
	r = tasksReport{Version: 1, Checkpoint: in.Model.Digest, Step: subject.Saved.Step, Tokenizer: subject.Tokenizer.Name(),
		Context: subject.Seq}
	for i, t := range all {
		s := scorer{Subject: subject, job: job, task: t}
		report, err := s.run(ctx)
		if err != nil {
			return r, "", err
		}
		_, report.Files, _ = strings.Cut(job.Params.TaskDigests[i], "=")
		r.Tasks = append(r.Tasks, report)
	}
	return r, subject.Name("tasks"), nil
}

// readTasks reads the files of the tasks.
func readTasks(p Params) (all []*tasks.Task, err error) {
	for _, text := range p.Tasks {
		name, path, err := splitTask(text)
		if err != nil {
			return nil, err
		}
		t, err := tasks.Read(name, path)
		if err != nil {
			return nil, err
		}
		t.Limit(p.TaskLimit)
		all = append(all, t)
	}
	return all, nil
}

func (r tasksReport) scores() event.SortedMap[event.SortedMap[event.TaskScore]] {
	all := event.SortedMap[event.SortedMap[event.TaskScore]]{}
	for _, t := range r.Tasks {
		all[t.Task] = event.SortedMap[event.TaskScore]{}
		for _, s := range t.Scores {
			all[t.Task][s.Metric] = event.TaskScore{Value: s.Value, Error: s.Error, Chance: s.Chance}
		}
	}
	return all
}

// scorer computes the log-likelihoods of a task's requests.
type scorer struct {
	*measure.Subject
	job  *stage.Job[Params]
	task *tasks.Task

	requests    []request
	likelihoods [][]tasks.Likelihood // by example and answer
}

// request is the tokens of one answer of an example.
type request struct {
	tasks.Tokens
	example, answer int
	length          int // tokens of the sequence in which it is computed, the shortest one with room for it
}

func (s *scorer) run(ctx context.Context) (taskReport, error) {
	r := taskReport{LeftOut: len(s.task.Examples)}
	if err := s.encode(); err != nil {
		return r, stage.Permanent(fmt.Errorf("task %s: %w", s.task.Name, err))
	}
	r.LeftOut -= len(s.task.Examples)
	for _, q := range s.requests {
		r.Requests++
		if q.Truncated {
			r.Truncated++
		}
	}
	slices.SortStableFunc(s.requests, func(a, b request) int { return b.length - a.length })
	for from := 0; from < len(s.requests); {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		length := s.requests[from].length
		to := min(from+s.Batch*s.Seq/length, len(s.requests))
		for s.requests[to-1].length < length {
			to--
		}
		if err := s.batch(s.requests[from:to], length); err != nil {
			return r, err
		}
		from = to
		s.job.Progress(stage.Progress{Done: int64(to), Total: int64(len(s.requests)), Unit: s.task.Name + " requests"})
	}
	r.Result = s.task.Score(s.likelihoods, s.Tokenizer.Vocab())
	return r, nil
}

// encode makes the requests of all examples. Examples with an answer that is longer than the model reads are left out.
func (s *scorer) encode() error {
	var there []tasks.Example
	for _, e := range s.task.Examples {
		requests, err := s.requestsOf(e, len(there))
		if errors.Is(err, tasks.ErrTooLong) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.Where(), err)
		}
		there = append(there, e)
		s.requests = append(s.requests, requests...)
		s.likelihoods = append(s.likelihoods, make([]tasks.Likelihood, len(requests)))
	}
	if left := len(s.task.Examples) - len(there); left > 0 {
		s.job.Note("task %s: left out are examples that have an answer of more than the %d tokens that the model reads: %d",
			s.task.Name, s.Seq, left)
	}
	s.task.Examples = there
	if len(there) == 0 {
		return fmt.Errorf("%w at once, %d, in every example", tasks.ErrTooLong, s.Seq)
	}
	return nil
}

func (s *scorer) requestsOf(e tasks.Example, example int) (all []request, err error) {
	lengths := cuts(s.Seq)
	for i, r := range e.Requests {
		t, err := tasks.Encode(s.Tokenizer, r, s.Seq)
		if err != nil {
			return nil, err
		}
		n, _ := slices.BinarySearch(lengths, len(t.IDs)-1)
		all = append(all, request{t, example, i, lengths[n]})
	}
	return all, nil
}

// shortest is the least length into which sequences are cut: attention of GPUs reads four positions at once.
const shortest = 16

// cuts are the lengths into which sequences of seq tokens are cut, ascending: seq, its half, and so on.
func cuts(seq int) []int {
	all := []int{seq}
	for seq%8 == 0 && seq/2 >= shortest {
		seq /= 2
		all = append(all, seq)
	}
	slices.Reverse(all)
	return all
}

// batch computes requests at once, each in a sequence of its own of length tokens. Tokens behind a request change
// nothing before them.
func (s *scorer) batch(requests []request, length int) error {
	size := (len(requests)*length + s.Seq - 1) / s.Seq * s.Seq
	tokens, targets := make([]int32, size), make([]int32, size)
	for i := range targets {
		targets[i] = -1
	}
	for i, r := range requests {
		n := len(r.IDs) - 1
		copy(tokens[i*length:], r.IDs[:n])
		copy(targets[i*length+n-r.Continuation:], r.IDs[n+1-r.Continuation:])
	}
	settings := s.Settings
	settings.Seq = length
	losses, err := s.Model.Losses(tokens, targets, settings)
	if err != nil {
		return err
	}
	for i, r := range requests {
		l := &s.likelihoods[r.example][r.answer]
		l.Tokens = r.Continuation
		for k := i * length; k < (i+1)*length; k++ {
			if targets[k] >= 0 {
				l.Nats -= float64(losses[k])
			}
		}
		if math.IsNaN(l.Nats) || math.IsInf(l.Nats, 0) {
			return stage.Permanentf("%s: the log-likelihood is %g: the model is broken", s.task.Examples[r.example].Where(),
				l.Nats)
		}
	}
	if len(s.task.Examples[requests[0].example].Choices) > 0 {
		return nil
	}
	return s.greedy(requests, length, tokens, targets, settings)
}

// greedy finds the continuations that greedy decoding gives.
func (s *scorer) greedy(requests []request, length int, tokens, targets []int32, settings model.Settings) error {
	for _, r := range requests {
		s.likelihoods[r.example][r.answer].Greedy = true
	}
	wanted := func(row int) bool { return targets[row] >= 0 }
	return s.Model.EachLogits(tokens, wanted, settings, func(row int, logits []float32) {
		if model.Best(logits) != targets[row] {
			r := requests[row/length]
			s.likelihoods[r.example][r.answer].Greedy = false
		}
	})
}
