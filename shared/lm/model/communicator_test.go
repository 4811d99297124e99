package model

import (
	"fmt"
	"sync"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// exchange is AllReduce between two goroutines: the floats of both meet, and both get their sum.
type exchange struct{ to, from [2]chan []float32 }

func newExchange() *exchange {
	x := &exchange{}
	for i := range 2 {
		x.to[i] = make(chan []float32, 1)
	}
	x.from = [2]chan []float32{x.to[1], x.to[0]}
	return x
}

func (e *exchange) allReduce(rank int) func(kernels.Device, kernels.Floats) error {
	return func(dev kernels.Device, x kernels.Floats) error {
		mine := make([]float32, x.Len())
		if err := dev.Download(mine, x); err != nil {
			return err
		}
		e.to[rank] <- mine
		sum := make([]float32, len(mine))
		for i, v := range <-e.from[rank] {
			sum[i] = mine[i] + v
		}
		dev.Upload(x, sum)
		return nil
	}
}

// Two ranks stay equal to the bit, and train what one device trains, to the rounding of sums: gradients of every
// micro-batch are drawn from the same random numbers.
func TestTwoRanksTrainWhatOneDoes(t *testing.T) {
	for _, bits := range []int{kernels.FloatBits, 4} {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			alone := build(t, small(), 1, Options{Batch: 1, GradBits: bits})
			train(t, alone, 0, 4)
			x := newExchange()
			var ranks [2]*Model
			var wait sync.WaitGroup
			for r := range ranks {
				m, err := New(small(), cpu.New(cpu.Options{Workers: 1}), Options{Batch: 1, GradBits: bits,
					Communicator: Communicator{Rank: r, Ranks: 2, AllReduce: x.allReduce(r)}})
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Init(5); err != nil {
					t.Fatal(err)
				}
				ranks[r] = m
				wait.Go(func() { train(t, m, 0, 4) })
			}
			wait.Wait()
			if t.Failed() {
				return
			}
			first := parametersOf(t, ranks[0])
			sameParameters(t, "ranks", first, parametersOf(t, ranks[1]))
			for i, p := range parametersOf(t, alone) {
				if e := distance(first[i].Data, widen(p.Data)); e > 1e-3 {
					t.Errorf("%s is %.2g of its norm from what one device trains", p.Name, e)
				}
			}
			a, err := alone.Result()
			if err != nil {
				t.Fatal(err)
			}
			b, err := ranks[1].Result()
			if err != nil || b.Loss < 0.9999*a.Loss || b.Loss > 1.0001*a.Loss {
				t.Errorf("the loss is %v (%v), one device's %v", b.Loss, err, a.Loss)
			}
		})
	}
	for _, c := range []Communicator{{Rank: 1}, {Ranks: 2}, {Rank: 2, Ranks: 2, AllReduce: newExchange().allReduce(0)},
		{Rank: -1}} {
		if _, err := New(small(), cpu.New(cpu.Options{}), Options{Communicator: c}); err == nil {
			t.Errorf("rank %d of %d was taken", c.Rank, c.Ranks)
		}
	}
}
