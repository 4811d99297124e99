package pipelinefile

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/run/param"
)

// ServingKeys are the keys of a pipeline file, and the flags of its launcher, that say how a stage's processes serve.
// They change nothing that the stage makes. Each is a flag of the stage's program too.
var ServingKeys = []string{"deadline", "attempts", "metrics"}

// checkServing returns an error that says which values the key takes, if value is none of them.
func checkServing(key, value string) error {
	switch key {
	case "deadline":
		if d, err := time.ParseDuration(value); err != nil || d <= 0 {
			return fmt.Errorf("%q is no longest time for a job, such as 90s or 2h", value)
		}
	case "attempts":
		if n, err := strconv.Atoi(value); err != nil || n < 1 {
			return fmt.Errorf("%q is no number of attempts from 1", value)
		}
	case "metrics":
		_, port, err := net.SplitHostPort(value)
		if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || n > 1<<16-maxWorkers {
			return fmt.Errorf("%q is no address such as 127.0.0.1:9100", value)
		}
	}
	return nil
}

// readServing reads a mapping of stages to values.
func (f *File) readServing(key string, node *yaml.Node) error {
	var values map[string]string
	if node.Decode(&values) != nil {
		return fmt.Errorf("%s: give a mapping of stages to values, e.g. {train: 2h}", key)
	}
	for stage, value := range values {
		if err := checkServing(key, value); err != nil {
			return fmt.Errorf("%s: %s: %w", key, stage, err)
		}
		f.serve(stage, key, value)
	}
	return nil
}

// SetServing takes a value from the launcher's flag of the key: STAGE=VALUE, or VALUE for all stages.
func (f *File) SetServing(key, text string) error {
	stages, value := f.order, text
	if stage, v, ok := strings.Cut(text, "="); ok {
		if !slices.Contains(f.order, stage) {
			return fmt.Errorf("--%s %s: %w", key, text, param.UnknownKey(stage, f.order))
		}
		stages, value = []string{stage}, v
	} else if key == "metrics" {
		return fmt.Errorf("--metrics %s: say of which stage, STAGE=ADDRESS: each process needs a port of its own", text)
	}
	if err := checkServing(key, value); err != nil {
		return fmt.Errorf("--%s %s: %w", key, text, err)
	}
	for _, stage := range stages {
		f.serve(stage, key, value)
	}
	return nil
}

func (f *File) serve(stage, key, value string) {
	if f.serving[stage] == nil {
		f.serving[stage] = map[string]string{}
	}
	f.serving[stage][key] = value
}

// ServingFlags are the flags with which a worker of the stage serves, counted from 0. The port of its metrics is as
// many above the one given.
func (f *File) ServingFlags(stage string, worker int) []string {
	var flags []string
	for _, key := range ServingKeys {
		value, given := f.serving[stage][key]
		if !given {
			continue
		}
		if host, port, err := net.SplitHostPort(value); err == nil && key == "metrics" {
			n, _ := strconv.Atoi(port) // checked where it was read
			value = net.JoinHostPort(host, strconv.Itoa(n+worker))
		}
		flags = append(flags, "--"+key+"="+value)
	}
	return flags
}
