package bus

import (
	"context"
	"errors"
	"testing"
	"time"

	"bitnet1/shared/run/bus/bustest"
	"bitnet1/shared/run/event"
)

// onCluster connects to a node.
func onCluster(t *testing.T, c *bustest.Cluster, node int) *Bus {
	t.Helper()
	a := Address{URL: c.URL(node), User: bustest.ClusterUser, Password: bustest.ClusterPassword}
	b, err := Connect(t.Context(), a, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func announce(t *testing.T, b *Bus, step int) {
	t.Helper()
	e, err := event.New("r", "stage", "", event.Part{}, event.PackWritten{Step: step})
	if err == nil {
		err = b.Publish(t.Context(), e)
	}
	if err != nil {
		t.Fatalf("event %d: %v", step, err)
	}
}

// take answers the next event of a queue, which is that of a step. An answer may be lost with a server: then the same
// event comes again.
func take(t *testing.T, q *Queue, step int) {
	t.Helper()
	for ctx := t.Context(); ; {
		d, err := q.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if d == nil {
			continue
		}
		e, err := event.Decode(d.Data)
		if err != nil {
			t.Fatal(err)
		}
		body, err := event.Into[event.PackWritten](e)
		if err != nil || body.Step > step {
			t.Fatalf("step %d: %v, want %d", body.Step, err, step)
		}
		wait, cancel := context.WithTimeout(ctx, apiWait)
		err = d.Ack(wait)
		cancel()
		if err == nil && body.Step == step {
			return
		}
	}
}

// One server of three may be killed, then another one be cut off, and what was acknowledged is there. Clients of the
// server that is cut off move to another one, whether they announce, wait or ask.
func TestAClusterOfThreeGoesOnWithTwo(t *testing.T) {
	if testing.Short() {
		t.Skip("servers that choose a new leader take seconds")
	}
	t.Parallel()
	c := bustest.StartCluster(t)
	const first = 1
	// They hear of the other servers there.
	b, worker, launcher := onCluster(t, c, first), onCluster(t, c, first), onCluster(t, c, first)
	for _, s := range []string{EventStream, DeadStream} {
		if stream, err := b.js.Stream(t.Context(), s); err != nil || stream.CachedInfo().Config.Replicas != 3 {
			t.Fatalf("stream %s: %v, want three replicas", s, err)
		}
	}
	queue, err := worker.Listen(t.Context(), Listener{Stage: "count", Run: "r", Kind: event.PackWritten{}.Kind()})
	if err != nil {
		t.Fatal(err)
	}
	announce(t, b, 1)
	take(t, queue, 1)

	began := time.Now()
	c.Kill(0)
	announce(t, b, 2)
	take(t, queue, 2)
	t.Logf("a server is killed: the next event was announced and taken %.1f s later", time.Since(began).Seconds())
	c.Resume(0)
	c.Await(0)

	began = time.Now()
	c.Cut(first)
	answered := make(chan error)
	go func() {
		_, err := launcher.Last(t.Context(), "r")
		answered <- err
	}()
	announce(t, b, 3)
	take(t, queue, 3)
	t.Logf("a server is cut off: the next event was announced and taken %.1f s later", time.Since(began).Seconds())
	if err := <-answered; err != nil {
		t.Error(err)
	}
	c.Join(first)
	c.Await(first)

	announce(t, b, 4)
	take(t, queue, 4)
	events, bad, err := b.History(t.Context(), "r", "*.*", 0)
	if err != nil || bad > 0 || len(events) != 4 {
		t.Errorf("%d events, %d of them damaged; want 4 (%v)", len(events), bad, err)
	}
}

// Streams that a single server has made get their replicas when these are asked for.
func TestReplicasAreASetting(t *testing.T) {
	for _, bad := range []string{"0", "6", "three"} {
		if _, err := Connect(t.Context(), Address{URL: "nats://127.0.0.1:1", Replicas: bad}, "test"); err == nil {
			t.Errorf("NATS_REPLICAS=%s is taken", bad)
		}
	}
	single := serve(t)
	address := single.Address()
	address.Replicas = "3"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if b, err := Connect(ctx, address, "test"); err == nil {
		b.Close()
		t.Error("one server is taken for three")
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("what cannot be is waited for: %v", err)
	}
}
