package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
)

// Limits of keeping stages alive.
const (
	idleGrace    = 10 * time.Second // from the request to end to the kill, of a stage that has nothing to save
	waitingLine  = 3 * time.Second  // between two lines that say what is waited for
	earlyDeath   = 2 * time.Second  // a program that dies sooner did not get to work
	earlyDeaths  = 4                // in a row, before the run is given up
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
	outage  time.Duration

	wg      sync.WaitGroup
	mu      sync.Mutex
	running map[*os.Process]string // stage
	killed  bool
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
			if unusable(err) {
				give(gaveUp, fmt.Errorf("stage %s: %s\n%s", s.Name, last, continues))
				return
			}
			early++
			if time.Since(started) > earlyDeath {
				early = 0
			}
			if early >= earlyDeaths {
				give(gaveUp, fmt.Errorf("stage %s ends as soon as it is started: %s", s.Name, last))
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

// give sends err unless there is another one already.
func give(gaveUp chan<- error, err error) {
	select {
	case gaveUp <- err:
	default:
	}
}

// unusable reports whether a process has ended because the event server or the
// disk kept it from working: to start it again would only wait once more.
func unusable(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == command.Unusable
}

// stop waits until all processes have ended; their context has. It says what it
// waits for: a stage that is at work saves it first, however long that takes. A
// signal ends them at once, and so does a while without work to save: idle says
// that there is none. stop reports whether they ended by themselves.
func (c *children) stop(signals <-chan os.Signal, idle bool) bool {
	ended := make(chan struct{})
	go func() { c.wg.Wait(); close(ended) }()
	var grace <-chan time.Time
	if idle {
		grace = time.After(idleGrace)
	}
	began := time.Now()
	tick := time.NewTicker(waitingLine)
	defer tick.Stop()
	saved := true
	for {
		select {
		case <-ended:
			return saved
		case <-signals:
			saved = false
			c.kill()
		case <-grace:
			c.kill()
		case <-tick.C:
			c.note(fmt.Sprintf("waiting for %s to save what is done and end (%s so far); Ctrl-C ends at once, without saving",
				strings.Join(c.names(), ", "), time.Since(began).Round(time.Second)))
		}
	}
}

// kill ends every process, and what it has started, at once.
func (c *children) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	for p := range c.running {
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	}
}

// names are the stages that run.
func (c *children) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Compact(slices.Sorted(maps.Values(c.running)))
}

// begin starts cmd where processes are not to end at once meanwhile.
func (c *children) begin(cmd *exec.Cmd, stage string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed {
		return context.Canceled
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if c.running == nil {
		c.running = map[*os.Process]string{}
	}
	c.running[cmd.Process] = stage
	return nil
}

func (c *children) end(cmd *exec.Cmd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, cmd.Process)
}

// once runs the process to its end and returns the last line it wrote.
func (c *children) once(ctx context.Context, s plannedStage, worker int) (last string, err error) {
	args := append(slices.Clone(s.command[1:]), "serve", "--run", c.run)
	cmd := exec.Command(s.command[0], append(args, s.serving(worker)...)...)
	cmd.Env = append(withoutBus(os.Environ()), c.address.Environ()...)
	cmd.Env = append(append(cmd.Env, c.keys...), "BITNET1_DATA="+c.data, command.EnvLauncher+"=1", command.EnvOutage+"="+c.outage.String())
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
	if err := c.begin(cmd, s.Name); err != nil {
		return err.Error(), err
	}
	defer c.end(cmd)
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
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
