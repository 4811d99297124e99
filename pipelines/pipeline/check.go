package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/corpus"
	"bitnet1/pipelines/pipeline/pipelinefile"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
)

// checkFlags refuses values that flags cannot have, whatever the pipeline file says.
func checkFlags(c *cli.Context) error {
	if run := c.String("run"); run != "" && !event.ValidRun(run) {
		return command.Usagef("--run %s: use letters, digits, - and _ (at most 100)", run)
	}
	if port := c.Int("nats-port"); port < 0 || port > math.MaxUint16 {
		return command.Usagef("--nats-port %d: use 1 to %d, or 0 for any free one", port, math.MaxUint16)
	}
	if stall := c.Duration("stall"); stall < 0 {
		return command.Usagef("--stall %s: use a duration such as 5m, or 0 for never", stall)
	}
	if outage := c.Duration("outage"); outage < time.Millisecond {
		return command.Usagef("--outage %s: use 1ms or more", outage)
	}
	if _, _, err := net.SplitHostPort(c.String("view")); err != nil && !slices.Contains(viewWords, c.String("view")) {
		return command.Usagef("--view %s: use true, false or HOST:PORT", c.String("view"))
	}
	return nil
}

// checkReach makes sure that every stage has events to answer: the launcher's own, or those of a stage that has some.
// Of a stage that does not say what it announces, anything may come.
func checkReach(stages []plannedStage) error {
	announced := map[string]bool{event.RunStarted{}.Kind(): true, event.SourceAdded{}.Kind(): true,
		event.JobFinished{}.Kind(): true}
	for before := -1; before < len(announced); {
		before = len(announced)
		for _, s := range stages {
			if s.Emits == nil {
				return nil
			}
			for _, kind := range s.Emits {
				if announced[s.Kind] {
					announced[kind] = true
				}
			}
		}
	}
	var problems []error
	for _, s := range stages {
		if !announced[s.Kind] {
			problems = append(problems,
				fmt.Errorf("stage %s answers %s events, and no stage that is reached announces them: add such a stage to the "+
					"pipeline file (%s describe prints what it answers and announces)", s.Name, s.Kind, s.Name))
		}
	}
	return errors.Join(problems...)
}

// checkLengths compares what several stages and sources say of sequences.
func checkLengths(inputs []pipelinefile.Input, file *pipelinefile.File, fields map[string][]param.Field) error {
	return errors.Join(checkCopyTasks(inputs, file, fields), checkSequences(file, fields))
}

// checkCopyTasks compares the lengths that a copy task is described by: the source's, the shards' and that of what
// counts. Without counted_targets a copy task is text like any other.
func checkCopyTasks(inputs []pipelinefile.Input, file *pipelinefile.File, fields map[string][]param.Field) error {
	var sequence int
	var counted []int
	var tokenizer string
	for key, into := range map[string]any{"sequence_length": &sequence, "counted_targets": &counted,
		"tokenizer": &tokenizer} {
		_, value, ok := file.Value(key, fields)
		readable := ok && json.Unmarshal(value, into) == nil
		if !readable {
			return nil // the pipeline has stages of another kind, or another check refuses the value
		}
	}
	if len(counted) == 0 {
		return nil
	}
	for _, in := range inputs {
		if !strings.HasPrefix(in.Location, "copy:") {
			continue
		}
		task, err := corpus.ParseCopyTask(in.Location, file.Seed)
		if err != nil {
			return err
		}
		first, last := task.Length+1, 2*task.Length
		if sequence != last+1 || !slices.Equal(counted, []int{first, last}) || tokenizer != task.Tokenizer() {
			return fmt.Errorf("source %s: its length and symbols, a sequence of %d, the counted targets %v and the tokenizer "+
				"%s do not belong together: give %s", in.Location, sequence, counted, tokenizer,
				copySettings(task, file, fields))
		}
	}
	return nil
}

// copySettings are the flags that make a pipeline fit a copy task.
func copySettings(task corpus.CopyTask, file *pipelinefile.File, fields map[string][]param.Field) string {
	first, last := task.Length+1, 2*task.Length
	var flags []string
	for _, s := range []struct{ key, value string }{
		{"sequence_length", strconv.Itoa(last + 1)},
		{"counted_targets", fmt.Sprintf("%d,%d", first, last)},
		{"tokenizer", task.Tokenizer()},
		{"batch_tokens", strconv.Itoa(corpus.CopyBatch * (last + 1))},
	} {
		if stage, _, ok := file.Value(s.key, fields); ok {
			flags = append(flags, fmt.Sprintf("--set %s.%s=%s", stage, s.key, s.value))
		}
	}
	return strings.Join(flags, " ")
}

// checkSequences compares the tokens of a sequence with those of a step, of which the trainer would know only when the
// dataset is there.
func checkSequences(file *pipelinefile.File, fields map[string][]param.Field) error {
	of := func(key string) (stage string, value int) { // 0: no stage takes it, or another check refuses the value
		stage, b, ok := file.Value(key, fields)
		if !ok || json.Unmarshal(b, &value) != nil {
			return "", 0
		}
		return stage, max(value, 0)
	}
	shard, sequence := of("sequence_length")
	if sequence == 0 {
		return nil
	}
	name := shard + ".sequence_length"
	var problems []error
	for _, key := range []string{"batch_tokens", "batch_start"} {
		if stage, n := of(key); n%sequence != 0 {
			problems = append(problems, fmt.Errorf("%s.%s is %d, no multiple of %s, %d: use %d", stage, key, n, name, sequence,
				(n+sequence-1)/sequence*sequence))
		}
	}
	trainer, _ := of("batch_tokens")
	if stage, n := of("micro_tokens"); stage == trainer && n > 0 && n < sequence {
		problems = append(problems, fmt.Errorf("%s.micro_tokens is %d, less than %s: use %d or more", stage, n, name,
			sequence))
	}
	if stage, n := of("sequence_start"); n > 0 && (sequence%n != 0 || bits.OnesCount(uint(sequence/n)) != 1) {
		problems = append(problems, fmt.Errorf("%s.sequence_start is %d: %s, %d, must be 2, 4, 8 … times it", stage, n, name,
			sequence))
	}
	return errors.Join(problems...)
}
