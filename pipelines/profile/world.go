package main

import (
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"bitnet1/kernels"
	"bitnet1/kernels/timing"
	"bitnet1/shared/lm/compute"
	"bitnet1/shared/lm/model"
)

// together is what was measured of steps that several devices take together.
type together struct {
	settings
	median     time.Duration      // of whole steps
	exchanges  []timing.Operation // of all steps, all ranks together
	floatAlone time.Duration      // median of one device's steps with float sums
}

// speedup is how many times the rate of one device, with its part of the step and the given median, all have.
func (t together) speedup(one time.Duration) float64 {
	return float64(len(t.devices)) * one.Seconds() / t.median.Seconds()
}

// perStep is the mean of all ranks.
func (t together) perStep(o timing.Operation) (calls, megabytes float64, took time.Duration) {
	n := t.steps * len(t.devices)
	return float64(o.Calls) / float64(n), float64(o.Bytes) / float64(n) / 1e6, o.Time / time.Duration(n)
}

// waited is how often and how long a device has waited for exchanges in a step.
func (t together) waited() (calls float64, took time.Duration) {
	for _, o := range t.exchanges {
		if o.Category == timing.Waiting {
			calls, _, took = t.perStep(o)
		}
	}
	return calls, took
}

// share are the settings of one of several devices, which takes its part of the step alone.
func (s settings) share() settings {
	n := len(s.devices)
	s.tokens, s.threads, s.devices = s.tokens/n, max(1, s.threads/n), s.devices[:1]
	return s
}

// measureTogether measures one device that takes its part of a step alone, and then all devices.
func (s settings) measureTogether(pprofFile string) (measurement, error) {
	share := s.share()
	m, err := share.measure("")
	if err != nil {
		return m, err
	}
	m.together = &together{settings: s}
	share.fixedSums = false
	if m.together.floatAlone, _, err = share.timeAlone(""); err != nil {
		return m, err
	}
	m.together.median, m.together.exchanges, err = s.timeTogether(pprofFile)
	return m, err
}

// timeTogether times whole steps of all devices, and the exchanges within these steps: only there do they overlap with
// what the devices compute.
func (s settings) timeTogether(pprofFile string) (median time.Duration, exchanges []timing.Operation, err error) {
	w, err := s.join()
	if err != nil {
		return 0, nil, err
	}
	median, err = s.time(pprofFile, func(step int, tokens, targets []int32) error {
		return w.each(func(r *rank) error {
			if step == warmUp {
				if _, err := r.exchanges.Profile(); err != nil {
					return err
				}
			}
			return s.take(r.net, tokens, targets, step)
		})
	})
	for _, r := range w {
		if err != nil {
			break
		}
		var list []timing.Operation
		list, err = r.exchanges.Profile()
		exchanges = append(exchanges, list...)
	}
	return median, timing.Sum(exchanges), errors.Join(err, w.close())
}

// rank is one of several devices, with the model on it.
type rank struct {
	device    kernels.Device
	exchanges timing.ExchangeProfiler
	net       *model.Model
}

// world are the ranks of one process. Each has a goroutine of its own, as NCCL needs it.
type world []*rank

// join opens the devices, joins them and builds the model on each.
func (s settings) join() (world, error) {
	w := make(world, len(s.devices))
	threads := s.share().threads
	for i, name := range s.devices {
		d, err := compute.Open(name, threads)
		if err != nil {
			return nil, errors.Join(err, w[:i].close())
		}
		w[i] = &rank{device: d}
	}
	if err := w.meet(); err != nil {
		return nil, err // the devices stay open: other ranks may still look for one another, and nothing ends that
	}
	err := w.each(func(r *rank) (err error) {
		r.exchanges.StartProfile()
		r.net, err = s.build(r.device, r.exchanges)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// meet makes the communicators.
func (w world) meet() error {
	id, err := compute.NewID(w[0].device)
	if err != nil {
		return err
	}
	next, prior := make([]net.Conn, len(w)), make([]net.Conn, len(w))
	for i := range w {
		next[i], prior[(i+1)%len(w)] = net.Pipe()
	}
	failed := make(chan error, len(w))
	for i, r := range w {
		go func() {
			c, err := compute.Communicator(r.device,
				compute.Place{Rank: i, Ranks: len(w), Next: next[i], Prior: prior[i], ID: id})
			if err == nil {
				r.exchanges = timing.OfCommunicator(c)
			}
			failed <- err
		}()
	}
	for range w {
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

// each calls f for all ranks at the same time. The first failure ends the exchanges of all.
func (w world) each(f func(r *rank) error) error {
	failed := make(chan error, len(w))
	var wait sync.WaitGroup
	for _, r := range w {
		wait.Go(func() {
			if err := f(r); err != nil {
				failed <- err
				w.abort(err)
			}
		})
	}
	wait.Wait()
	close(failed)
	return <-failed
}

// abort ends the exchanges, those of all ranks at once: they may wait for one another.
func (w world) abort(cause error) {
	var wait sync.WaitGroup
	for _, r := range w {
		wait.Go(func() { r.exchanges.Abort(cause) })
	}
	wait.Wait()
}

// close ends the exchanges, and closes the devices.
func (w world) close() (err error) {
	if !slices.ContainsFunc(w, func(r *rank) bool { return r.exchanges == nil }) {
		w.abort(errors.New("the devices are closed"))
	}
	for _, r := range w {
		err = errors.Join(err, r.device.Close())
	}
	return err
}
