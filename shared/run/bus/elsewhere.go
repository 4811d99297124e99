package bus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// elsewhere moves a connection to another server of a cluster. A server that is cut off from the others keeps its
// clients, and can neither store nor deliver for them.
type elsewhere struct {
	conn *nats.Conn

	mu    sync.Mutex
	since time.Time // since when the server refuses; zero: it serves
}

// moveAfter is how long a server may refuse: about as long as a cluster takes to choose another leader. A client that
// moves in vain loses nothing.
const moveAfter = 6 * time.Second

// heard takes the answer to a request that was made at the time asked.
func (e *elsewhere) heard(asked time.Time, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !refuses(err):
		e.since = time.Time{}
	case e.since.IsZero():
		e.since = asked
	}
	if !e.since.IsZero() && time.Since(e.since) > moveAfter && len(e.conn.Servers()) > 1 {
		e.since = time.Time{}
		_ = e.conn.ForceReconnect() // it goes on with the next server
	}
}

// idInProcess is a server's code for an event that it has taken and not stored yet. A leader that is cut off never
// stores it.
const idInProcess = 10158

// led asks again while a server stands still, or a cluster has nobody who could answer, which is for some seconds after
// it has lost a leader. It does so until b.Patience is over.
func (b *Bus) led(ctx context.Context, ask func() error) error {
	limit := time.Now().Add(b.Patience)
	for {
		asked := time.Now()
		err := ask()
		b.elsewhere.heard(asked, err)
		silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
		if !refuses(err) || ctx.Err() != nil || b.denied.Load() != nil || !silent && len(b.conn.Servers()) == 1 ||
			time.Now().After(limit) {
			return err
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// refuses reports whether err is that of a server that finds nobody who could serve the request.
func refuses(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code == http.StatusServiceUnavailable || api.ErrorCode == idInProcess
	}
	for _, one := range []error{context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders,
		jetstream.ErrNoStreamResponse, jetstream.ErrNoHeartbeat} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// replicas is the number that NATS_REPLICAS gives, 0 for none.
func (a Address) replicas() (int, error) {
	if a.Replicas == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(a.Replicas)
	if err != nil || n < 1 || n > 5 {
		return 0, fmt.Errorf("NATS_REPLICAS=%s: give how many servers are to have every event, 1 to 5", a.Replicas)
	}
	return n, nil
}
