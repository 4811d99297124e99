package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
)

// trial is one run of the pipeline, from its start to its end.
type trial struct {
	*campaign
	cluster *cluster // nil: the launcher starts the event server

	mu       sync.Mutex
	launcher *os.Process // nil while none runs

	began  atomic.Int32 // faults that were due
	struck atomic.Int32
}

const pollEvery = 5 * time.Millisecond

func (k *campaign) data() string { return filepath.Join(k.dir, "data") }

// start empties the folder of the data and starts what the launcher needs.
func (k *campaign) start(ownServer bool) (*trial, error) {
	store := filepath.Join(k.dir, "nats")
	if err := errors.Join(os.RemoveAll(k.data()), os.RemoveAll(store)); err != nil {
		return nil, err
	}
	t := &trial{campaign: k}
	var err error
	if !ownServer {
		t.cluster, err = startCluster(k.self, store, k.servers)
	}
	return t, err
}

// end ends all processes of the trial.
func (t *trial) end() {
	for _, p := range t.all() {
		_ = p.Kill()
	}
	if t.cluster != nil {
		t.cluster.stop()
	}
}

// disturb lets the strikes happen, each at its moment, until ctx ends, and returns when all that began are over.
func (t *trial) disturb(ctx context.Context, strikes []strike) {
	var wg sync.WaitGroup
	defer wg.Wait()
	w := newWatch(t.data())
	for left := slices.Clone(strikes); ctx.Err() == nil && len(left) > 0; pause(ctx, pollEvery) {
		w.look()
		left = slices.DeleteFunc(left, func(s strike) bool {
			due := w.counts[s.at.class] >= s.at.n
			if due {
				t.began.Add(1)
				wg.Go(func() {
					pause(ctx, s.after)
					if ctx.Err() == nil && s.fault.strike(ctx, t) {
						t.struck.Add(1)
					}
				})
			}
			return due
		})
	}
}

// finish gives the command of the launcher until it succeeds. A launcher may fail once for each fault.
func (t *trial) finish(ctx context.Context) (said string, err error) {
	for failures := 0; ; failures++ {
		said, status := t.launch(ctx)
		switch {
		case ctx.Err() != nil:
			return said, fmt.Errorf("%w\nthe launcher said last:\n%s", context.Cause(ctx), tail(said))
		case status == command.Done:
			return said, nil
		case failures >= int(t.began.Load()):
			return said, fmt.Errorf("the launcher ended with status %d, more often than faults struck:\n%s", status, tail(said))
		}
	}
}

// launch runs one launcher to its end.
func (t *trial) launch(ctx context.Context) (said string, status int) {
	cmd := exec.CommandContext(ctx, filepath.Join(t.programs, "pipeline"), append([]string{"run"}, t.words...)...)
	cmd.Env = slices.DeleteFunc(bus.WithoutAddress(os.Environ()),
		func(kv string) bool { return strings.HasPrefix(kv, "BITNET1_") })
	cmd.Env = append(cmd.Env, t.mark(), "BITNET1_VIEW=false", command.EnvAckWait+"="+t.ackWait.String(), "TERM=dumb")
	if t.cluster != nil {
		cmd.Env = append(cmd.Env, t.cluster.address.Environ()...)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // a stage that outlives the launcher has its output
	if err := cmd.Start(); err != nil {
		return err.Error(), command.Failed
	}
	t.setLauncher(cmd.Process)
	defer t.setLauncher(nil)
	_ = cmd.Wait()
	return out.String(), cmd.ProcessState.ExitCode()
}

func (t *trial) setLauncher(p *os.Process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.launcher = p
}

// mark is the variable of the environment by which the run's processes are known.
func (k *campaign) mark() string { return "BITNET1_DATA=" + k.data() }

// processes are those of a name.
func (t *trial) processes(name string) []*os.Process {
	switch {
	case name == brokerName && t.cluster == nil:
		return nil
	case name == brokerName:
		return t.cluster.processes()
	case name == launcherName:
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.launcher == nil {
			return nil
		}
		return []*os.Process{t.launcher}
	}
	return slices.DeleteFunc(t.all(), func(p *os.Process) bool {
		words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid))
		program, _, _ := strings.Cut(string(words), "\x00")
		return err != nil || filepath.Base(program) != name
	})
}

// all are the processes of the run. Each is held before it is looked at: its number may soon be another process's.
func (k *campaign) all() (running []*os.Process) {
	found, _ := filepath.Glob("/proc/[0-9]*/environ")
	mark := []byte("\x00" + k.mark() + "\x00")
	for _, path := range found {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(slices.Concat([]byte{0}, b, []byte{0}), mark) {
			_ = p.Release() // it has ended, or is another one's
			continue
		}
		running = append(running, p)
	}
	slices.SortFunc(running, func(a, b *os.Process) int { return cmp.Compare(a.Pid, b.Pid) })
	return running
}

// quiet waits until the launcher's stages have ended.
func (t *trial) quiet(ctx context.Context) error {
	for limit := time.Now().Add(20 * time.Second); ; pause(ctx, 10*pollEvery) {
		left := t.all()
		switch {
		case len(left) == 0, ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(limit):
			return fmt.Errorf("%d processes outlive their launcher", len(left))
		}
	}
}

// announced are the ids of the events that the event server has of all runs.
func (t *trial) announced(ctx context.Context) (ids []string, err error) {
	var address bus.Address
	if t.cluster != nil {
		if err := t.cluster.ready(); err != nil { // it may just have been killed
			return nil, err
		}
		address = t.cluster.address
	} else {
		s, err := bus.StartServer(filepath.Join(t.data(), "nats"), 0)
		if err != nil {
			return nil, err
		}
		defer s.Stop()
		address = s.Address()
	}
	b, err := bus.Connect(ctx, address, "chaos")
	if err != nil {
		return nil, err
	}
	defer b.Close()
	events, bad, err := b.History(ctx, "*", "*.*", 0)
	if bad > 0 {
		err = errors.Join(err, fmt.Errorf("the event server has %d messages that are no events", bad))
	}
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids, err
}

func tail(s string) string { return s[max(0, len(s)-4000):] }
