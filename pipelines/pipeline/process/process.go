// Package process keeps the processes of a run's stages alive: it starts them, starts those again that die, keeps their
// logs, and ends them when the run does.
package process

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

// Stage is a stage's program.
type Stage struct {
	Name    string
	Command []string                  // the words that start it
	Address bus.Address               // of the event server, for the stage's own user
	Flags   func(worker int) []string // with which a worker serves, counted from 0
}

// Group is the processes of one run.
type Group struct {
	Run    string
	Data   string        // the data directory
	Keys   []string      // variables of the environment with what opens the sources
	LogDir string        // folder of the processes' logs
	Outage time.Duration // how long the event server or the disk may be unusable
	Advice string        // what to do when they were unusable for longer

	Warn    func(stage, text string)
	Note    func(text string)
	OnDeath func(stage string, err error) // a process has died and is started again

	wg      sync.WaitGroup
	mu      sync.Mutex
	running map[*os.Process]string // stage
	killed  bool
}

// Keep starts a process of s, and starts it again when it dies, until ctx ends. If starting it again cannot help,
// gaveUp receives the reason.
func (g *Group) Keep(ctx context.Context, s Stage, worker int, gaveUp chan<- error) {
	g.wg.Go(func() {
		early := 0
		for ctx.Err() == nil {
			started := time.Now()
			last, err := g.once(ctx, s, worker)
			if ctx.Err() != nil {
				return
			}
			if unusable(err) {
				give(gaveUp, fmt.Errorf("stage %s: %s\n%s", s.Name, last, g.Advice))
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
			g.OnDeath(s.Name, err)
			select {
			case <-ctx.Done():
			case <-time.After(restartPause << early):
			}
		}
	})
}

// give sends err, unless the channel holds an error already.
func give(gaveUp chan<- error, err error) {
	select {
	case gaveUp <- err:
	default:
	}
}

// unusable reports whether a process has ended because it could not use the event server or the disk for too long. A
// new process would only wait again.
func unusable(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == command.Unusable
}

// Stop waits until all processes have ended, after their context has. A stage at work saves its work first, however
// long that takes, and Stop says which stages it waits for. A signal ends all processes at once. If idle is true there
// is no work to save, and the processes are ended after a short while. Stop reports whether no signal was needed.
func (g *Group) Stop(signals <-chan os.Signal, idle bool) bool {
	ended := make(chan struct{})
	go func() { g.wg.Wait(); close(ended) }()
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
			g.kill()
		case <-grace:
			g.kill()
		case <-tick.C:
			g.Note(fmt.Sprintf("waiting for %s to save what is done and end (%s so far); Ctrl-C ends at once, without saving",
				strings.Join(g.names(), ", "), time.Since(began).Round(time.Second)))
		}
	}
}

// kill ends every process, and what it has started, at once.
func (g *Group) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.killed = true
	for p := range g.running {
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	}
}

// names are the stages that run.
func (g *Group) names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Compact(slices.Sorted(maps.Values(g.running)))
}

// begin starts cmd, unless kill was called.
func (g *Group) begin(cmd *exec.Cmd, stage string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.killed {
		return context.Canceled
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if g.running == nil {
		g.running = map[*os.Process]string{}
	}
	g.running[cmd.Process] = stage
	return nil
}

func (g *Group) end(cmd *exec.Cmd) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.running, cmd.Process)
}

// once runs one process to its end and returns the last line of its log.
func (g *Group) once(ctx context.Context, s Stage, worker int) (last string, err error) {
	args := append(slices.Clone(s.Command[1:]), "serve", "--run", g.Run)
	cmd := exec.Command(s.Command[0], append(args, s.Flags(worker)...)...)
	cmd.Env = append(bus.WithoutAddress(os.Environ()), s.Address.Environ()...)
	cmd.Env = append(append(cmd.Env, g.Keys...), "BITNET1_DATA="+g.Data, command.EnvLauncher+"=1",
		command.EnvOutage+"="+g.Outage.String())
	// The process has a group of its own, so that Ctrl-C reaches only the launcher, which ends its processes in order. A
	// process whose launcher is killed notices the end of its standard input.
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
	log, err := g.openLog(s.Name, worker)
	if err != nil {
		return "", err
	}
	defer log.Close()
	if err := g.begin(cmd, s.Name); err != nil {
		return err.Error(), err
	}
	defer g.end(cmd)
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	last = g.copyLog(s.Name, output, log)
	return last, cmd.Wait()
}

func (g *Group) openLog(name string, worker int) (*os.File, error) {
	if worker > 0 {
		name = fmt.Sprintf("%s-%d", name, worker)
	}
	if err := os.MkdirAll(g.LogDir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(g.LogDir, name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
}

// copyLog appends a process's log to its file and shows its warnings and notes.
func (g *Group) copyLog(name string, from io.Reader, to io.Writer) (last string) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			_, _ = to.Write(line)
			if text, level := readLine(line); text != "" {
				last = text
				switch level {
				case "WARN", "ERROR":
					g.Warn(name, text)
				case "NOTE":
					g.Note(name + ": " + text)
				}
			}
		}
		if err != nil {
			return last
		}
	}
}

// readLine makes a sentence of a JSON log line. It returns other lines unchanged.
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
