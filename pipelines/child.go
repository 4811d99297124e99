package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"bitnet1/shared/bus"
	"bitnet1/shared/stage"
)

// Limits of keeping stages alive.
const (
	gracePeriod  = 3 * time.Second // from the request to end to the kill
	earlyDeath   = 2 * time.Second // a program that dies sooner did not get to work
	earlyDeaths  = 4               // in a row, before the run is given up
	restartPause = 300 * time.Millisecond
)

// children are the stages' processes of one run.
type children struct {
	run     string
	data    string
	address bus.Address
	keys    []string // variables with what opens the sources
	logDir  string
	warn    func(stage, text string)
	note    func(text string)
	onDeath func(stage string, err error)

	wg sync.WaitGroup
}

// keep starts a process of s and starts it again when it dies, until ctx ends.
// The error channel gets the reason when that is of no use.
func (c *children) keep(ctx context.Context, s plannedStage, worker int, gaveUp chan<- error) {
	c.wg.Go(func() {
		early := 0
		for ctx.Err() == nil {
			started := time.Now()
			last, err := c.once(ctx, s, worker)
			if ctx.Err() != nil {
				return
			}
			early++
			if time.Since(started) > earlyDeath {
				early = 0
			}
			if early >= earlyDeaths {
				select {
				case gaveUp <- fmt.Errorf("stage %s ends as soon as it is started: %s", s.Name, last):
				default:
				}
				return
			}
			c.onDeath(s.Name, err)
			select {
			case <-ctx.Done():
			case <-time.After(restartPause << early):
			}
		}
	})
}

// once runs the process to its end and returns the last line it wrote.
func (c *children) once(ctx context.Context, s plannedStage, worker int) (last string, err error) {
	cmd := exec.Command(s.command[0], append(s.command[1:len(s.command):len(s.command)], "serve", "--run", c.run)...)
	cmd.Env = append(withoutBus(os.Environ()), c.address.Environ()...)
	cmd.Env = append(append(cmd.Env, c.keys...), "BITNET1_DATA="+c.data, stage.EnvLauncher+"=1")
	// A group of its own: Ctrl-C reaches the launcher, which ends its children
	// in order. Standard input is how they notice when it is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	alive, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	defer alive.Close()
	output, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	cmd.Stdout = io.Discard
	log, err := c.openLog(s.Name, worker)
	if err != nil {
		return "", err
	}
	defer log.Close()
	if err := cmd.Start(); err != nil {
		return err.Error(), err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		time.AfterFunc(gracePeriod, func() { _ = cmd.Process.Kill() })
	})
	defer stop()
	last = c.copyLog(s.Name, output, log)
	return last, cmd.Wait()
}

func (c *children) openLog(name string, worker int) (*os.File, error) {
	if worker > 0 {
		name = fmt.Sprintf("%s-%d", name, worker)
	}
	if err := os.MkdirAll(c.logDir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(c.logDir, name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
}

// copyLog appends a process's log to its file and shows its warnings and notes.
func (c *children) copyLog(name string, from io.Reader, to io.Writer) (last string) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			_, _ = to.Write(line)
			if text, level := readLine(line); text != "" {
				last = text
				switch level {
				case "WARN", "ERROR":
					c.warn(name, text)
				case "NOTE":
					c.note(name + ": " + text)
				}
			}
		}
		if err != nil {
			return last
		}
	}
}

// readLine makes a sentence of a JSON log line; other lines are as they are.
func readLine(line []byte) (text, level string) {
	var entry map[string]any
	if json.Unmarshal(line, &entry) != nil {
		return string(bytes.TrimSpace(line)), ""
	}
	level, _ = entry["level"].(string)
	text, _ = entry["msg"].(string)
	if cause, ok := entry["error"].(string); ok {
		text += ": " + cause
	}
	return text, level
}

func withoutBus(env []string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "NATS_") {
			kept = append(kept, kv)
		}
	}
	return kept
}
