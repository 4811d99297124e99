package main

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"bitnet1/kernels"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/lm/model"
)

// rankCommand is the word with which rank 0 starts the program as another rank.
const rankCommand = "rank"

// exitLost is the exit status of a rank that ended because another was lost.
const exitLost = 4

// rankMain is the program of rank 1 and up. It does what rank 0 tells it, and ends when rank 0 does.
func rankMain() int {
	signal.Ignore(os.Interrupt, syscall.SIGTERM) // rank 0 says when to end
	var conns [3]net.Conn
	for i := range conns {
		f := os.NewFile(uintptr(3+i), "rank")
		c, err := net.FileConn(f)
		if err != nil {
			fmt.Fprintf(os.Stderr, "train %s: %v: only train itself starts this command, for --devices\n", rankCommand, err)
			return 2
		}
		_ = f.Close()
		conns[i] = c
	}
	orders := listen(conns[0], func() { os.Exit(0) })
	w := &worker{next: conns[1], prior: conns[2], orders: orders, answers: gob.NewEncoder(conns[0])}
	err := w.work()
	var device interface{ Unfit() bool }
	deviceLost := errors.As(err, &device) && device.Unfit()
	switch {
	case err == nil:
		return 0
	case w.communicator != nil && w.communicator.Err() != nil && !deviceLost:
		return exitLost
	}
	fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", ": "))
	return 1
}

// listen reads the orders of rank 0. When rank 0 has ended, it calls end, which ends this process at once, whatever it
// is at.
func listen(from io.Reader, end func()) <-chan order {
	orders := make(chan order, 8) // those told ahead wait here, two at most, so that the end is read
	go func() {
		for in := gob.NewDecoder(from); ; {
			var o order
			if err := in.Decode(&o); err != nil {
				end()
				return
			}
			orders <- o
		}
	}()
	return orders
}

// worker is a rank that does what rank 0 tells it.
type worker struct {
	next, prior  net.Conn
	orders       <-chan order
	answers      *gob.Encoder
	setup        setup
	device       kernels.Device
	communicator kernels.Communicator
	model        *model.Model
}

func (w *worker) work() error {
	for o := range w.orders {
		if err := w.do(o); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) do(o order) (err error) {
	switch {
	case o.Setup != nil:
		w.setup = *o.Setup
		w.device, err = compute.Open(w.setup.Device, w.setup.Threads)
		return w.answer(err)
	case o.Join != nil:
		return w.answer(w.join(o.Join.ID))
	case o.Share != nil:
		return w.model.Share(o.Share.Updates)
	case o.Step != nil:
		if err := w.model.Step(o.Step.Tokens, o.Step.Targets, o.Step.Update); err != nil {
			return err
		}
		_, err := w.model.Result()
		return err
	}
	return errors.New("an order that this program does not know")
}

// answer tells rank 0 how an order went.
func (w *worker) answer(err error) error {
	var a answer
	if err != nil {
		a.Error = err.Error()
	}
	return errors.Join(err, w.answers.Encode(a))
}

// join joins the other ranks and makes the model.
func (w *worker) join(id []byte) (err error) {
	s := w.setup
	w.communicator, err = compute.Communicator(w.device, compute.Place{Rank: s.Rank, Ranks: s.Ranks, Next: w.next,
		Prior: w.prior, ID: id})
	if err != nil {
		return err
	}
	s.Options.Communicator = w.communicator
	w.model, err = model.New(s.Config, w.device, s.Options)
	return err
}

// lastLine keeps the end of what a process writes.
type lastLine struct{ data []byte }

func (l *lastLine) Write(p []byte) (int, error) {
	l.data = append(l.data, p...)
	l.data = l.data[max(0, len(l.data)-4096):]
	return len(p), nil
}

// line is the last line, or the first of a crash of Go.
func (l *lastLine) line() string {
	text := bytes.TrimSpace(l.data)
	if at := bytes.Index(text, []byte("panic: ")); at >= 0 {
		text, _, _ = bytes.Cut(text[at:], []byte("\n"))
	}
	return strings.ToValidUTF8(string(text[bytes.LastIndexByte(text, '\n')+1:]), "\uFFFD")
}
