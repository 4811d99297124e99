package model

import (
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// graphs is a device and a communicator that note, in order, which programs run, what runs outside of them, and which
// exchanges begin.
type graphs struct {
	kernels.Device
	kernels.Communicator
	within bool
	log    []string
}

func (g *graphs) Capture(enqueue func()) (func(), error) {
	return func() {
		g.log = append(g.log, "program")
		g.within = true
		enqueue()
		g.within = false
	}, nil
}

// note notes an operation that is no part of a program.
func (g *graphs) note(operation string) {
	if !g.within {
		g.log = append(g.log, operation)
	}
}

func (g *graphs) exchange(what string) {
	if g.within {
		what += " within a program"
	}
	g.log = append(g.log, what)
}

func (g *graphs) LinearBackward(dx kernels.Floats, dl kernels.LinearGradient, dy kernels.Floats, d kernels.Derivative,
	x kernels.Activation, l kernels.Linear, s kernels.KShift, bits kernels.GradBits) {
	g.note("LinearBackward")
	g.Device.LinearBackward(dx, dl, dy, d, x, l, s, bits)
}

func (g *graphs) AddFixed(sums kernels.FixedSums, x kernels.Floats) {
	g.note("AddFixed")
	g.Device.AddFixed(sums, x)
}

func (g *graphs) ReadFixed(x kernels.Floats, sums kernels.FixedSums) {
	g.note("ReadFixed")
	g.Device.ReadFixed(x, sums)
}

func (g *graphs) AdamW(a kernels.Adam) {
	g.note("AdamW")
	g.Device.AdamW(a)
}

func (g *graphs) Muon(u kernels.Muon) {
	g.note("Muon")
	g.Device.Muon(u)
}

func (g *graphs) AllReduce(x kernels.Longs) {
	g.exchange("AllReduce")
	g.Communicator.AllReduce(x)
}

func (g *graphs) Broadcast(all ...kernels.Broadcast) {
	g.exchange("Broadcast")
	g.Communicator.Broadcast(all...)
}

func (g *graphs) Join() {
	g.exchange("Join")
	g.Communicator.Join()
}

// A rank runs programs, as a single device does, and makes exchanges between them: the sums of a layer begin
// before the layer below is computed, and what Muon has updated goes to the others before it updates more.
func TestExchangesLieBetweenPrograms(t *testing.T) {
	g := &graphs{Device: cpu.New(cpu.Options{}), Communicator: cpu.NewCommunicator(0, 1, nil, nil)}
	m, err := New(small(), g, Options{FixedSums: true, Muon: true, Communicator: g})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(5); err != nil {
		t.Fatal(err)
	}
	layers := slices.Repeat([]string{"program", "AllReduce"}, m.Config().Layers)
	want := slices.Concat([]string{"program"}, layers, // a micro-batch, and the last one
		[]string{"program", "AllReduce", "AllReduce", "Join", "program", // codebook and the rest; sums
			"program", "Broadcast", "program", "Broadcast", "program", "Broadcast", // Muon's matrices of three shapes
			"program", "Join", "program"}) // AdamW; weights are quantized
	for step := range uint64(3) { // captured, and again
		g.log = nil
		tokens, targets := sequences(m.Config(), 2, step)
		if err := m.Step(tokens, targets, Update{Settings: Settings{Gamma: 0.6}, LearningRate: 1e-3, Beta2: 0.9,
			Muon: Muon{LearningRate: 0.02, Steps: 3}}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(g.log, want) {
			t.Errorf("step %d ran\n%s\nwant\n%s", step, strings.Join(g.log, ", "), strings.Join(want, ", "))
		}
	}
}

// What a program has kept of a step's settings holds for steps with these settings alone.
func TestStepsOfOtherSettings(t *testing.T) {
	for name, change := range map[string]func(u *Update){
		"learning rate": func(u *Update) { u.LearningRate = 0.02 }, "beta1": func(u *Update) { u.Beta1 = 0.5 },
		"beta2": func(u *Update) { u.Beta2 = 0.5 }, "norm": func(u *Update) { u.MaxNorm = 1e-3 },
		"decay": func(u *Update) { u.Decay = 0.3 }, "Muon's rate": func(u *Update) { u.Muon.LearningRate = 0.05 },
		"Muon's beta": func(u *Update) { u.Muon.Beta = 0.5 }, "Muon's steps": func(u *Update) { u.Muon.Steps = 5 },
		"Muon's decay": func(u *Update) { u.Muon.Decay = 0.3 }, "gamma": func(u *Update) { u.Gamma = 0.3 },
	} {
		step := func(keep bool) string {
			m := build(t, small(), 1, Options{Muon: true})
			u := Update{Settings: Settings{Gamma: 0.6}, LearningRate: 0.01, Beta1: 0.9, Beta2: 0.95, MaxNorm: 1,
				Muon: Muon{LearningRate: 0.02, Beta: 0.9, Steps: 3}}
			tokens, targets := sequences(small(), 1, 3)
			for range 2 {
				if err := m.Step(tokens, targets, u); err != nil {
					t.Fatal(err)
				}
				if !keep {
					clear(m.programs)
				}
				change(&u)
			}
			return trained(t, m)
		}
		if step(true) != step(false) {
			t.Errorf("the first step's %s holds for the second", name)
		}
	}
}
