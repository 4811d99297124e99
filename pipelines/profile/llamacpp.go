package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// measureLlamaCpp measures the models of a preset's size that docs/examples/llamacpp.py wrote to dir, with llama.cpp's
// own programs there.
func measureLlamaCpp(dir, preset string, s inferenceSettings) (rows []inferenceSpeed, err error) {
	if dir == "" {
		return nil, nil
	}
	files, err := filepath.Glob(filepath.Join(dir, preset+"-*.gguf"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(err, fmt.Errorf("%s has no %s-*.gguf: write them with docs/examples/llamacpp.py %s", dir,
			preset, dir))
	}
	slices.Sort(files)
	for _, file := range slices.Backward(files) {
		m, err := s.measureGGUF(dir, file)
		if err != nil {
			return nil, fmt.Errorf("llama.cpp with %s: %w", file, err)
		}
		kind := strings.TrimPrefix(strings.TrimSuffix(filepath.Base(file), ".gguf"), preset+"-")
		m.Name = fmt.Sprintf("%s llama.cpp %s", preset, kind)
		rows = append(rows, m)
		fmt.Fprintf(os.Stderr, "%s: %.0f tokens/s\n", m.Name, m.Decode[1])
	}
	return rows, nil
}

// llamaBench is a line of llama-bench -o jsonl.
type llamaBench struct {
	Params   float64   `json:"model_n_params"`
	Prompt   int       `json:"n_prompt"`
	Nanos    []float64 `json:"samples_ns"`
	Measured []float64 `json:"samples_ts"` // tokens per second
}

// llamaBatchedBench is a line of llama-batched-bench --output-format jsonl.
type llamaBatchedBench struct {
	Streams int     `json:"pl"`
	Decode  float64 `json:"speed_tg"`
}

func (s inferenceSettings) measureGGUF(dir, file string) (m inferenceSpeed, err error) {
	m.LlamaCpp, m.Decode = true, make(map[int]float64)
	info, err := os.Stat(file)
	if err != nil {
		return m, err
	}
	m.File = info.Size()
	bench := []string{"-m", file, "-t", fmt.Sprint(s.Threads), "-r", fmt.Sprint(s.Rounds), "-o", "jsonl"}
	tokens := fmt.Sprint(s.Tokens)
	prompts := fmt.Sprintf("%d,%s", shortPrompt, tokens)
	m.Resident, err = runJSONL(dir, "llama-bench", append(bench, "-p", prompts, "-n", "0"),
		func(r llamaBench) {
			m.Weights = r.Params
			if r.Prompt == shortPrompt {
				m.FirstToken = time.Duration(slices.Min(r.Nanos))
			} else {
				m.Prompt = slices.Max(r.Measured)
			}
		})
	if err != nil {
		return m, err
	}
	more, err := runJSONL(dir, "llama-bench", append(bench, "-p", "0", "-n", fmt.Sprint(atOnce), "-d", tokens),
		func(r llamaBench) { m.Decode[1] = slices.Max(r.Measured) })
	if err != nil {
		return m, err
	}
	m.Resident = max(m.Resident, more)
	most := slices.Max(streams)
	_, err = runJSONL(dir, "llama-batched-bench", []string{
		"-m", file, "-t", fmt.Sprint(s.Threads), "-c", fmt.Sprint(most * (s.Tokens + atOnce)), "-npp", tokens, "-ntg",
		fmt.Sprint(atOnce), "-npl", strings.Trim(strings.ReplaceAll(fmt.Sprint(streams[1:]), " ", ","), "[]"),
		"--output-format", "jsonl",
	}, func(r llamaBatchedBench) { m.Decode[r.Streams] = r.Decode })
	return m, err
}

// runJSONL runs a program of dir, calls f with every line that it prints, and returns the most memory that was
// resident.
func runJSONL[T any](dir, program string, args []string, f func(T)) (resident int64, err error) {
	c := exec.Command(filepath.Join(dir, program), args...)
	var failure bytes.Buffer
	c.Stderr = &failure
	out, err := c.Output()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, bytes.TrimSpace(failure.Bytes()[max(0, failure.Len()-500):]))
	}
	for lines := json.NewDecoder(bytes.NewReader(out)); ; {
		var line T
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, fmt.Errorf("what %s prints: %w", program, err)
		}
		f(line)
	}
	if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		resident = usage.Maxrss << 10
	}
	return resident, nil
}
