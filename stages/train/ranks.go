package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"bitnet1/kernels"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/stage"
)

// Several devices train as ranks, each in a process of its own. Rank 0 is the stage: it reads the dataset, writes the
// checkpoints and the log, and tells the other ranks what to do. These are processes of this program (rank.go), which
// hold a model and nothing else. Each has a connection to rank 0 and, for the exchange of gradients, one to each of its
// neighbours in the ring of ranks. All connections are pairs of sockets without a name, which rank 0 makes.

// order is what rank 0 tells another rank. Exactly one field is set.
type order struct {
	Setup *setup
	Join  *join
	Share *share
	Step  *step
}

// setup says what to compute on, and what.
type setup struct {
	Rank, Ranks int
	Device      string
	Threads     int
	Config      model.Config
	Options     model.Options // without what is not data
}

// join says how to find the other ranks.
type join struct{ ID []byte }

// share asks for rank 0's parameters and state, which so many updates have made.
type share struct{ Updates int }

// step is a step to take.
type step struct {
	Tokens, Targets ids
	Update          model.Update
}

// ids are tokens. gob would write each of them by itself, which takes more than twice as long.
type ids []int32

// GobEncode writes four bytes for each: ranks are processes of one machine.
func (l ids) GobEncode() ([]byte, error) { return binary.Append(nil, binary.NativeEndian, []int32(l)) }

// GobDecode reads what GobEncode has written.
func (l *ids) GobDecode(b []byte) error {
	*l = make(ids, len(b)/4)
	_, err := binary.Decode(b, binary.NativeEndian, []int32(*l))
	return err
}

// answer is what a rank says to a setup and a join.
type answer struct{ Error string }

// ranks are the processes of ranks 1 and up.
type ranks struct {
	devices      []string
	peers        []*peer
	communicator kernels.Communicator
	ring         [2]net.Conn // of rank 0: to the next rank, and to the one before
}

// peer is the process of a rank.
type peer struct {
	rank   int
	device string
	*exec.Cmd
	net.Conn
	orders  *gob.Encoder
	answers chan answer   // closed when the connection ends
	ended   chan struct{} // closed when the process has ended
	said    lastLine
}

// startRanks starts a rank for each of the devices but the first, and gives it its setup.
func startRanks(devices []string, s setup) (*ranks, error) {
	r := &ranks{devices: devices}
	n := len(devices)
	next, prior := make([]*os.File, n), make([]*os.File, n)
	defer func() {
		for _, f := range append(next, prior...) {
			if f != nil {
				_ = f.Close()
			}
		}
	}()
	for i := range n {
		var err error
		if next[i], prior[(i+1)%n], err = socketPair(); err != nil {
			return nil, err
		}
	}
	var err error
	for i, f := range []*os.File{next[0], prior[0]} {
		if r.ring[i], err = net.FileConn(f); err != nil {
			return nil, err
		}
	}
	s.Ranks, s.Threads = n, max(1, s.Threads/n)
	for rank := 1; rank < n; rank++ {
		p, err := startPeer(rank, devices[rank], next[rank], prior[rank])
		if err != nil {
			r.close()
			return nil, fmt.Errorf("starting rank %d on %s: %w", rank, devices[rank], err)
		}
		r.peers = append(r.peers, p)
		s.Rank, s.Device = rank, devices[rank]
		if err := p.orders.Encode(order{Setup: &s}); err != nil {
			return nil, r.lost(err)
		}
	}
	return r, nil
}

// startPeer starts the process of a rank. It is in a process group of its own, so that Ctrl-C in a terminal does not
// reach it: it ends when its connection to rank 0 does. It does not need to know the event server.
func startPeer(rank int, device string, next, prior *os.File) (*peer, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	program, err := stage.Self()
	if err != nil {
		return nil, err
	}
	p := &peer{rank: rank, device: device, Cmd: exec.Command(program, rankCommand), answers: make(chan answer, 2),
		ended: make(chan struct{})}
	p.Env = bus.WithoutAddress(os.Environ())
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Stderr = &p.said
	p.ExtraFiles = []*os.File{theirs, next, prior}
	if p.Conn, err = net.FileConn(ours); err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		_ = p.Conn.Close()
		return nil, err
	}
	p.orders = gob.NewEncoder(p.Conn)
	go p.listen()
	return p, nil
}

// listen passes on what the process answers, and waits for its end.
func (p *peer) listen() {
	defer close(p.ended)
	answers := gob.NewDecoder(p.Conn)
	for {
		var a answer
		if err := answers.Decode(&a); err != nil {
			break
		}
		p.answers <- a
	}
	close(p.answers)
	_ = p.Wait()
}

// answered waits until every rank has done what it was told.
func (r *ranks) answered() error {
	for _, p := range r.peers {
		a, ok := <-p.answers
		if !ok {
			return r.lost(errors.New("a rank ended"))
		}
		if a.Error != "" {
			return fmt.Errorf("rank %d on %s: %s", p.rank, p.device, a.Error)
		}
	}
	return nil
}

// join makes the communicator of all ranks. device is that of rank 0.
func (r *ranks) join(device kernels.Device) (kernels.Communicator, error) {
	if err := r.answered(); err != nil { // else a rank that never joins would be waited for
		return nil, err
	}
	id, err := compute.NewID(device)
	if err != nil {
		return nil, err
	}
	if err := r.tell(order{Join: &join{ID: id}}); err != nil {
		return nil, err
	}
	place := compute.Place{Ranks: len(r.devices), Next: r.ring[0], Prior: r.ring[1], ID: id}
	if r.communicator, err = r.found(device, place); err != nil {
		return nil, r.lost(err)
	}
	for _, p := range r.peers { // an exchange with a GPU that is gone would never end
		go func() {
			<-p.ended
			r.communicator.Abort(fmt.Errorf("rank %d has ended", p.rank))
		}()
	}
	return r.communicator, nil
}

// found waits until all ranks have found one another, or one has ended: NCCL would wait for it for ever.
func (r *ranks) found(device kernels.Device, place compute.Place) (kernels.Communicator, error) {
	type joined struct {
		kernels.Communicator
		error
	}
	done, ended := make(chan joined, 1), make(chan *peer, len(r.peers))
	for _, p := range r.peers {
		go func() {
			<-p.ended
			ended <- p
		}()
	}
	go func() {
		c, err := compute.Communicator(device, place)
		done <- joined{c, err}
	}()
	select {
	case j := <-done:
		return j.Communicator, j.error
	case p := <-ended:
		return nil, fmt.Errorf("rank %d ended before all had found one another", p.rank)
	}
}

// tell gives all ranks an order, at the same time.
func (r *ranks) tell(o order) error {
	if r == nil {
		return nil
	}
	told := make(chan error, len(r.peers))
	for _, p := range r.peers {
		go func() { told <- p.orders.Encode(o) }()
	}
	var failed error
	for range r.peers {
		failed = errors.Join(failed, <-told)
	}
	if failed != nil {
		return fmt.Errorf("%w: %w", model.ErrAbandoned, failed)
	}
	return nil
}

// failed reports whether a rank was lost.
func (r *ranks) failed() bool {
	return r != nil && r.communicator != nil && r.communicator.Err() != nil
}

// lostRank is the error of a training of which a rank was lost. Another process can go on.
type lostRank struct{ error }

func (l lostRank) Unwrap() error { return l.error }

// Unfit says that this process has to start again.
func (lostRank) Unfit() bool { return true }

// lost ends all ranks and says which of them was lost, where one can tell: the others end because it did.
func (r *ranks) lost(cause error) error {
	r.close()
	for _, p := range r.peers {
		if code := p.ProcessState.ExitCode(); code != 0 && code != exitLost {
			return lostRank{fmt.Errorf("rank %d on %s was lost (%s): the same command goes on", p.rank, p.device,
				cmp.Or(p.said.line(), p.ProcessState.String()))}
		}
	}
	return lostRank{fmt.Errorf("the ranks do not train together any more: %w", cause)}
}

// close ends all ranks.
func (r *ranks) close() {
	if r == nil {
		return
	}
	if r.communicator != nil {
		r.communicator.Abort(context.Canceled)
	}
	for _, c := range r.ring {
		_ = c.Close()
	}
	for _, p := range r.peers {
		_ = p.Conn.Close()
	}
	for _, p := range r.peers {
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			_ = p.Process.Kill()
			<-p.ended
		}
	}
}

// socketPair makes two connected sockets that no program inherits by itself.
func socketPair() (a, b *os.File, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("connection between ranks: %w", err)
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	return os.NewFile(uintptr(fds[0]), "rank"), os.NewFile(uintptr(fds[1]), "rank"), nil
}
