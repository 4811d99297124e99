package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/stage"
)

// What losses are drawn over.
const (
	overTokens  = "tokens"
	overSeconds = "seconds"
)

// withLogs adds the curves of training logs, each given as LABEL=FILE.
func withLogs(all []curve, given []string) ([]curve, error) {
	for _, text := range given {
		label, path, labelled := strings.Cut(text, "=")
		if !labelled {
			return nil, command.UsageError(fmt.Errorf("--log %s: write LABEL=FILE", text))
		}
		for _, other := range all {
			if other.label == label {
				return nil, command.UsageError(fmt.Errorf("--log %s: the label %s is given before", text, label))
			}
		}
		log, err := trainlog.Read(path)
		if err != nil {
			return nil, err
		}
		c := curve{label: label, path: path, log: log}
		for _, line := range log {
			switch l := line.(type) {
			case trainlog.Step:
				c.last.Step, c.last.Tokens = l.Step, l.Tokens
			case trainlog.Checkpoint:
				c.last.Step, c.last.Tokens = l.Step, l.Tokens
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// setClocks says of every curve when its steps were done. speeds are LABEL=TOKENS a second.
func setClocks(all []curve, speeds []string) error {
	speed := map[string]float64{}
	for _, text := range speeds {
		label, number, _ := strings.Cut(text, "=")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || v <= 0 {
			return command.UsageError(fmt.Errorf("--speed %s: write LABEL=TOKENS, a number of tokens a second", text))
		}
		speed[label] = v
	}
	for i := range all {
		c := &all[i]
		seconds, err := secondsOfSteps(*c, speed[c.label])
		if err != nil {
			return err
		}
		c.seconds = seconds
		delete(speed, c.label)
	}
	for label := range speed {
		return command.UsageError(fmt.Errorf("--speed %s: no --run and no --log has this label", label))
	}
	return nil
}

// secondsOfSteps is the training time until each logged step: by a speed in tokens a second unless that is 0, by the
// log itself, or by the times beside the log.
func secondsOfSteps(c curve, speed float64) (map[int]float64, error) {
	seconds := map[int]float64{}
	has := func(step int, tokens int64, logged float64) {
		switch {
		case speed > 0:
			seconds[step] = float64(tokens) / speed
		case logged > 0:
			seconds[step] = logged
		}
	}
	for _, line := range c.log {
		switch l := line.(type) {
		case trainlog.Step:
			has(l.Step, l.Tokens, l.Seconds)
		case trainlog.Checkpoint: // of a step that may have no line of its own
			has(l.Step, l.Tokens, l.Seconds)
		}
	}
	if len(seconds) > 0 {
		return seconds, nil
	}
	seconds, err := trainlog.Elapsed(filepath.Join(filepath.Dir(c.path), stage.TimesFolder, trainlog.TimesFileName))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: how long the steps of %s took is not known; --speed '%[2]s=TOKENS' gives tokens a second", err,
			c.label)
	}
	return seconds, err
}
