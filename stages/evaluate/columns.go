package main

import (
	"fmt"
	"strings"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/stages/evaluate/tasks"
)

// taskResults declares a column for each task's metrics, with chance beside it. Tasks that a run does not score have
// none in its table.
func taskResults() results.Result {
	r := results.Result{Kind: event.TasksScored{}.Kind(), Headline: "checkpoint {step} on tasks"}
	for _, d := range tasks.Definitions() {
		for _, metric := range d.Metrics {
			if metric == tasks.ByBytes {
				continue // nearly acc_norm; the report has it
			}
			c := column(d, metric)
			r.Columns = append(r.Columns, c)
			r.Headline += fmt.Sprintf("[, %s %s (chance %s)]", c.Name, c.Value, c.Baseline.Value)
		}
	}
	return r
}

func column(d tasks.Definition, metric string) results.Column {
	field := func(name string) results.Template {
		format := ".1%"
		if metric == tasks.Perplexity {
			format = "si"
		}
		return results.Template(fmt.Sprintf("{scores.%s.%s.%s:%s}", d.Name, metric, name, format))
	}
	key, name := d.Name+"_"+metric, d.Title+" "+strings.ReplaceAll(metric, "_", " ")
	c := results.Column{Key: key, Name: name, Value: field("value"), Error: field("error"), Better: results.Higher,
		About: "score on " + d.Title + ", as lm-evaluation-harness scores it",
		Baseline: &results.Baseline{Key: key + "_chance", Name: d.Title + " chance", Value: field("chance"),
			About: "the same of a model to which all answers are equally probable"}}
	if metric == tasks.Perplexity {
		c.Better, c.About = results.Lower, "perplexity of the last words of "+d.Title
	}
	return c
}
