package model

import (
	"errors"

	"bitnet1/kernels"
)

// Snapshot is a model as it was at one moment. Another goroutine may read it while training goes on, until the next
// snapshot is taken or the device is closed. Its parameters have a Source in place of data.
type Snapshot struct {
	Parameters []Parameter // in the order of Config.Parameters
	State      State
}

// Snapshot copies parameters and optimizer state within the device's memory, after the steps that were enqueued before,
// for which it does not wait. The model must have been built with Options.Snapshots, which reserves the memory.
func (m *Model) Snapshot() (Snapshot, error) {
	s := &m.store
	if s.kept == nil {
		return Snapshot{}, errors.New("the model was built without Options.Snapshots: there is no room for one")
	}
	at := 0
	keep := func(x kernels.Floats) kernels.Floats {
		if x == nil {
			return nil
		}
		to := s.kept.Slice(at, at+x.Len())
		m.dev.Copy(to, x)
		at += x.Len()
		return to
	}
	param, mean, square, master := keep(s.param), keep(s.m), keep(s.v), keep(s.master)
	reader, err := m.dev.NewReader()
	if err != nil {
		return Snapshot{}, err
	}
	give := func(p *Parameter, values kernels.Floats) error {
		p.From = kept{reader, values}
		return nil
	}
	var snapshot Snapshot
	if snapshot.Parameters, err = s.cut(param, same, all, give); err != nil {
		return Snapshot{}, err
	}
	snapshot.State, err = m.state(mean, square, master, give)
	return snapshot, err
}

// kept is a part of a snapshot.
type kept struct {
	reader kernels.Reader
	values kernels.Floats
}

func (k kept) Read(dst []float32, from int) error {
	return k.reader.Read(dst, k.values.Slice(from, k.values.Len()))
}
