//go:build cuda

package model

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/kernels/cuda"
)

// gpu returns device 0, or skips the test where there is none.
func gpu(t *testing.T) *cuda.Device {
	t.Helper()
	d, err := cuda.Open(0, cuda.Options{})
	if errors.Is(err, cuda.ErrNoDevice) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestGoldenOnGPU(t *testing.T) { checkGolden(t, gpu(t)) }

// What a GPU trains is what the processor trains, to rounding; and the same bytes every time.
func TestTrainingOnGPU(t *testing.T) {
	dev := gpu(t)
	for name, o := range map[string]struct{ stream, grad int }{"float": {16, 16}, "strict": {1, 4}, "stream4": {4, 4}} {
		t.Run(name, func(t *testing.T) {
			c := small()
			c.StreamBits = o.stream
			var first, second []Parameter
			for i, d := range []kernels.Device{cpu.New(cpu.Options{}), dev, dev} {
				m, err := New(c, d, Options{Batch: 2, GradBits: o.grad})
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Init(5); err != nil {
					t.Fatal(err)
				}
				train(t, m, 0, 3)
				list := parametersOf(t, m)
				switch i {
				case 0:
					first = list
				case 1:
					second = list
				}
				if i == 0 {
					continue
				}
				for j, p := range list {
					if e := distance(p.Data, widen(first[j].Data)); e > 1e-3 {
						t.Errorf("run %d: %s is %.2g of its norm from the processor's", i, p.Name, e)
					}
					if !slices.Equal(p.Data, second[j].Data) {
						t.Errorf("%s differs between two runs on one GPU", p.Name)
					}
				}
			}
		})
	}
}

var (
	profilePreset = flag.String("profile.preset", "", "measure training steps of this preset on the GPU")
	profileStream = flag.Int("profile.stream", 4, "bits of the stream")
	profileGrad   = flag.Int("profile.grad", 4, "bits of gradients")
	profileTokens = flag.Int("profile.tokens", 65536, "tokens of a step")
	profileMicro  = flag.Int("profile.micro", 65536, "tokens of a micro-batch")
	profileSteps  = flag.Int("profile.steps", 8, "steps to take the median of")
)

// TestProfile prints tokens per second of whole training steps, replayed as graphs, and a table of what every kernel takes.
func TestProfile(t *testing.T) {
	if *profilePreset == "" {
		t.Skip("measures with -profile.preset")
	}
	c, err := Preset(*profilePreset)
	if err != nil {
		t.Fatal(err)
	}
	c.StreamBits = *profileStream
	dev := gpu(t)
	m, err := New(c, dev, Options{Batch: *profileMicro / c.Seq, GradBits: *profileGrad})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	step := 0
	once := func() time.Duration {
		tokens, targets := text(c.Vocab, *profileTokens, uint64(step))
		start := time.Now()
		err := m.Step(tokens, targets, Update{Settings: Settings{Gamma: 0.6, Seed: 9, Step: uint64(step)}, LearningRate: 6e-4, MaxNorm: 1})
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Result()
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		if step < 3 || step%5 == 0 {
			fmt.Printf("step %d: loss %.6f, norm %.4f, %v\n", step, r.Loss, r.Norm, took.Round(time.Microsecond))
		}
		step++
		return took
	}
	once()
	once()
	var times []time.Duration
	for range *profileSteps {
		times = append(times, once())
	}
	slices.Sort(times)
	median := times[len(times)/2]
	fmt.Printf("%s on %s, stream %d, gradients %d, %d tokens a step in micro-batches of %d: median %v a step, %.1f k tokens/s, %.2f GiB allocated\n",
		*profilePreset, dev.Name(), *profileStream, *profileGrad, *profileTokens, *profileMicro, median.Round(time.Microsecond),
		float64(*profileTokens)/median.Seconds()/1000, float64(dev.Allocated())/(1<<30))
	m.programs = map[any]func(){} // run without graphs, which events cannot look into
	dev.StartProfile()
	once()
	list, err := dev.Profile()
	if err != nil {
		t.Fatal(err)
	}
	printProfile(list)
}

// text draws tokens with frequencies like those of language: rank r as often as 1/r.
func text(vocab, n int, seed uint64) (tokens, targets []int32) {
	x := seed*2862933555777941757 + 3037000493
	next := func() float64 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		return float64(x>>11) / (1 << 53)
	}
	for range n + 1 {
		tokens = append(tokens, int32(min(math.Exp(next()*math.Log(float64(vocab)))-1, float64(vocab-1))))
	}
	return tokens[:n], tokens[1:]
}

// categories of kernels, by prefix.
var categories = []struct{ name, prefixes string }{
	{"binary products", "gemm_ transpose_bits spread_bytes channel_thresholds pack_signs"},
	{"rounding of gradients", "grad_ add_columns finish_weights"},
	{"attention", "survivor attend_ dense_"},
	{"loss", "losses_"},
	{"float elementwise", "normalize embed chain_ emit_ expand scale_rows blend sgemm"},
	{"optimizer", "adamw sum_blocks add_total"},
	{"clearing and copies", "clear set_scalars"},
}

func category(kernel string) string {
	for _, c := range categories {
		for _, p := range strings.Fields(c.prefixes) {
			if strings.HasPrefix(kernel, p) {
				return c.name
			}
		}
	}
	return "other"
}

func printProfile(list []cuda.KernelTime) {
	var total time.Duration
	sums := map[string]time.Duration{}
	for _, k := range list {
		total += k.Time
		sums[category(k.Kernel)] += k.Time
	}
	fmt.Printf("%-28s %6s %10s %7s\n", "kernel", "calls", "ms", "share")
	for _, k := range list {
		fmt.Printf("%-28s %6d %10.3f %6.1f%%\n", k.Kernel, k.Calls, 1000*k.Time.Seconds(), 100*float64(k.Time)/float64(total))
	}
	names := make([]string, 0, len(sums))
	for n := range sums {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool { return sums[names[i]] > sums[names[j]] })
	for _, n := range names {
		fmt.Printf("%-35s %10.3f %6.1f%%\n", n, 1000*sums[n].Seconds(), 100*float64(sums[n])/float64(total))
	}
	fmt.Printf("%-35s %10.3f\n", "sum of kernels", 1000*total.Seconds())
	os.Stdout.Sync()
}
