package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"bitnet1/shared/run/bus"
)

// fault is what happens to a run at a moment. Another kind of fault is a type with these methods and a line in kinds.
type fault interface {
	fmt.Stringer

	// strike makes the fault happen and returns when it is over. It reports false where it did not find what it is about.
	strike(ctx context.Context, t *trial) bool
}

// kinds are the kinds of faults, with how often each is drawn.
var kinds = []struct {
	weight int
	draw   func(r *rand.Rand, targets []string) fault
}{
	{weight: 11, draw: processFault("kill")},
	{weight: 5, draw: processFault("restart")},
	{weight: 4, draw: processFault("stop")},
}

// drawFault draws a fault of any kind. targets are the names of the processes.
func drawFault(r *rand.Rand, targets []string) fault {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	n := r.IntN(sum)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			return k.draw(r, targets)
		}
	}
	panic("unreachable: n is less than the sum")
}

// process is a fault of one process of a run.
type process struct {
	action string // kill, restart or stop
	target string // a stage, launcherName or brokerName
	which  int    // of several processes of that name
}

// Names of processes that are no stages.
const (
	launcherName = bus.LauncherName
	brokerName   = "broker"
)

func processFault(action string) func(*rand.Rand, []string) fault {
	return func(r *rand.Rand, targets []string) fault {
		return process{action: action, target: targets[r.IntN(len(targets))], which: r.IntN(1 << 10)}
	}
}

func (p process) String() string { return p.action + " " + p.target }

// cut is a fault of a cluster: a server is cut off from the others, and its clients do not notice.
type cut struct {
	which int
}

// cutFor is longer than a cluster needs to choose another leader (4 to 9 s) and a client to move to another server.
const cutFor = 15 * time.Second

func (c cut) String() string { return fmt.Sprintf("cut off broker %d", c.which) }

func (c cut) strike(ctx context.Context, t *trial) bool {
	t.cluster.cut(c.which, true)
	defer t.cluster.cut(c.which, false)
	pause(ctx, cutFor)
	return true
}

// appearance is how long a fault waits for a process that is being started.
const appearance = 5 * time.Second

func (p process) strike(ctx context.Context, t *trial) bool {
	for limit := time.Now().Add(appearance); ctx.Err() == nil && time.Now().Before(limit); pause(ctx, pollEvery) {
		found := t.processes(p.target)
		if len(found) == 0 {
			continue
		}
		one := found[p.which%len(found)]
		switch p.action {
		case "kill":
			return one.Kill() == nil
		case "restart": // whoever keeps the process starts it again
			return one.Signal(syscall.SIGTERM) == nil
		}
		if one.Signal(syscall.SIGSTOP) != nil {
			continue
		}
		pause(ctx, t.ackWait*3/2)
		_ = one.Signal(syscall.SIGCONT) // it may have been killed meanwhile
		return true
	}
	return false
}

// pause lasts for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
