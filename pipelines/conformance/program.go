package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"bitnet1/shared/run/command"
)

// program is a process of the stage, started as the launcher starts it.
type program struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *tail
	exited chan struct{}
	ending bool // it was told to end, or killed
}

// start starts the stage's program.
func (t *trial) start() (*program, error) {
	p := &program{cmd: t.command(context.Background(), "serve", "--run", t.run), stderr: &tail{},
		exited: make(chan struct{})}
	address := t.server.AddressOf(t.description.Name)
	address.URL = t.relay.url()
	p.cmd.Env = append(append(os.Environ(), address.Environ()...),
		"BITNET1_DATA="+filepath.Join(t.dir, "data"), command.EnvLauncher+"=1")
	p.cmd.Stderr = p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.programs = append(t.programs, p)
	return p, nil
}

// kill ends the program in a way that it cannot notice.
func (p *program) kill() {
	p.ending = true
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// terminate asks the program to end, and says how long it took.
func (p *program) terminate(ask func() error, limit time.Duration) (time.Duration, error) {
	p.ending = true
	began := time.Now()
	if err := ask(); err != nil {
		return 0, err
	}
	select {
	case <-p.exited:
	case <-time.After(limit):
		return 0, fmt.Errorf("the program goes on for more than %v", limit)
	}
	return time.Since(began), nil
}

// died says that a program has ended though nobody told it to.
func (t *trial) died() error {
	for _, p := range t.programs {
		select {
		case <-p.exited:
			if !p.ending {
				return fmt.Errorf("the program has ended: %v%s", p.cmd.ProcessState, t.logs())
			}
		default:
		}
	}
	return nil
}

// logs are the last lines that the newest program wrote to standard error, for an error message.
func (t *trial) logs() string {
	if len(t.programs) == 0 {
		return ""
	}
	text := t.programs[len(t.programs)-1].stderr.String()
	if text == "" {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return "\n" + strings.Join(lines[max(len(lines)-5, 0):], "\n")
}

// tail keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

const tailSize = 4 << 10

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, b...)
	l.kept = bytes.Clone(l.kept[max(len(l.kept)-tailSize, 0):])
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.kept)
}
