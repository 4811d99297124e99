package main

import (
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bitnet1/kernels"
	"bitnet1/kernels/timing"
	"bitnet1/shared/lm/model"
)

// recorded are kernels of two steps of the 300M preset on one H100, some of them.
func recorded(t *testing.T) measurement {
	t.Helper()
	c, err := model.Preset("300M")
	if err != nil {
		t.Fatal(err)
	}
	c.StreamBits = 4
	return measurement{
		settings: settings{preset: "300M", config: c, gradBits: 4, tokens: 65536, micro: 32768, steps: 20},
		name:     "NVIDIA H100 80GB HBM3", median: 217 * time.Millisecond, looked: 2,
		memory: 24 << 30,
		operations: []timing.Operation{
			{Name: "grad_round_bytes_4_dense", Category: timing.Rounding, Calls: 84, Time: 80200 * time.Microsecond},
			{Name: "gemm_wgmma_float32", Category: timing.BinaryProducts, Calls: 170, Time: 68 * time.Millisecond},
			{Name: "survivor_scores_8_4", Category: timing.Attention, Float: true, Calls: 42, Time: 54 * time.Millisecond},
			{Name: "gemm_wgmma_bytes_add", Category: timing.ByteProducts, Calls: 86, Time: 50 * time.Millisecond},
			{Name: "normalize_backward_4", Category: timing.Elementwise, Float: true, Calls: 86, Time: 32800 * time.Microsecond},
			{Name: "gemm_wgmma_bits", Category: timing.BinaryProducts, Calls: 84, Time: 24 * time.Millisecond},
			{Name: "survivors_8_4", Category: timing.Attention, Calls: 42, Time: 21400 * time.Microsecond},
			{Name: "adamw", Category: timing.Optimizer, Float: true, Calls: 6, Time: 4 * time.Millisecond},
		},
	}
}

// recordedTogether is the same beside two of them, whose step has twice the tokens.
func recordedTogether(t *testing.T) measurement {
	t.Helper()
	m := recorded(t)
	m.fixedSums = true
	all := m.settings
	all.tokens, all.devices, all.steps = 131072, []string{"cuda:0", "cuda:1"}, 2
	m.together = &together{settings: all, median: 231 * time.Millisecond, floatAlone: 213 * time.Millisecond,
		exchanges: []timing.Operation{
			{Name: "AllReduce", Category: timing.Exchanges, Calls: 104, Bytes: 9813e6, Time: 40200 * time.Microsecond},
			{Name: "Join", Category: timing.Waiting, Calls: 8, Time: 21 * time.Millisecond},
			{Name: "Broadcast", Category: timing.Exchanges, Calls: 8, Float: true, Bytes: 4200e6, Time: 15 * time.Millisecond},
		}}
	return m
}

func TestReport(t *testing.T) {
	for file, m := range map[string]measurement{"report.md": recorded(t), "devices.md": recordedTogether(t)} {
		var b strings.Builder
		if err := writeReport(&b, m); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("the report is\n%s\nwant that of %s\n%s", b.String(), file, want)
		}
	}
}

// A processor has no memory of its own, of which the report says nothing.
func TestReportWithoutMemory(t *testing.T) {
	m := recorded(t)
	m.memory = 0
	var b strings.Builder
	if err := writeReport(&b, m); err != nil || strings.Contains(b.String(), "GiB") {
		t.Errorf("%v, and the report is\n%s", err, b.String())
	}
}

func TestPicture(t *testing.T) {
	alone, together := drawn(t, recorded(t)), drawn(t, recordedTogether(t))
	if together.Dy() <= alone.Dy() {
		t.Errorf("the picture of two devices is %v, that of one %v: the exchanges are not drawn", together, alone)
	}
}

// drawn is the size of a measurement's picture, which has bars of both colours.
func drawn(t *testing.T, m measurement) image.Rectangle {
	t.Helper()
	path := filepath.Join(t.TempDir(), "step.png")
	if err := drawProfile(path, m); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[3]uint32]int{}
	for y := range picture.Bounds().Dy() {
		for x := range picture.Bounds().Dx() {
			r, g, b, _ := picture.At(x, y).RGBA()
			seen[[3]uint32{r >> 8, g >> 8, b >> 8}]++
		}
	}
	for _, c := range [][3]uint32{{0x00, 0x72, 0xb2}, {0xe6, 0x9f, 0x00}} {
		if seen[c] < 1000 {
			t.Errorf("%d pixels of colour %x were drawn", seen[c], c)
		}
	}
	return picture.Bounds()
}

// Products of a step, counted by hand for one layer that is as small as can be.
func TestWork(t *testing.T) {
	c := model.Config{D: 2, FF: 3, Layers: 1, Vocab: 5, StreamBits: 4}
	// Pairs of inputs and outputs: 12 of q, k and v, 4 of o, 6 of up, 6 of down, 10 of the head; 2 operations for each of
	// 7 tokens.
	const each = 2 * 7
	for _, test := range []struct {
		stream, grad, weightGrad int
		gpu                      bool
		binary, bytes            float64
	}{
		{4, kernels.FloatBits, 8, true, each * (4*(12+6+10) + 4 + 6), 0},
		{1, 3, 0, true, each * (12 + 4 + 6 + 6 + 10) * (1 + 3 + 3), 0},
		{1, 3, 5, true, each * ((12+4+6+6)*(1+3+5) + 10*(1+5+5)), 0},
		{4, 3, 5, false, each * (4*(12+6) + 4 + 6 + 3*(12+4+6+6) + 5*(4+6) + 5*4*(12+6)), 0},
		{4, 3, 0, true, each * (4*(12+6+10) + 4 + 6 + 3*(12+4+6+6+10) + 3*(4+6)), each * (12 + 6 + 10)},
		{4, 3, 0, false, each * (4*(12+6) + 4 + 6 + 3*(12+4+6+6) + 3*(4+6) + 3*4*(12+6)), 0},
		{16, 3, 0, true, each * (4 + 6 + 3*(12+4+6+6+10) + 3*(4+6)), 0},
	} {
		c.StreamBits = test.stream
		w := workOf(c, test.grad, test.weightGrad, 7, test.gpu)
		if w[timing.BinaryProducts] != test.binary || w[timing.ByteProducts] != test.bytes {
			t.Errorf("%+v: counted %v", test, w)
		}
	}
}

// small is a model that is measured quickly.
func small(devices ...string) settings {
	c := model.Config{Vocab: 64, D: 16, Layers: 2, Heads: 2, FF: 32, Seq: 16, Eps: 1e-5, StreamBits: 4, Alibi: true}.V76()
	return settings{preset: "small", config: c, gradBits: 4, fixedSums: len(devices) > 1, tokens: 64, micro: 32, steps: 3,
		devices: devices, threads: 2, measuredInto: 2}
}

// A small model is measured on the processor, all of it.
func TestMeasure(t *testing.T) {
	s, pprofFile := small("cpu"), filepath.Join(t.TempDir(), "cpu.pprof")
	m, err := s.measure(pprofFile)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for _, o := range m.operations {
		calls[o.Name] = o.Calls / m.looked
	}
	for name, want := range map[string]int{"AdamW": 3, "CrossEntropyBackward": 2, "Attend": 2 * 2,
		"LinearBackward": 2 * 2 * 4} {
		if calls[name] != want {
			t.Errorf("a step has %d calls of %s, want %d", calls[name], name, want)
		}
	}
	if m.median <= 0 || !strings.HasPrefix(m.name, "cpu") || m.gpu() || m.memory != 0 {
		t.Errorf("measured %+v", m)
	}
	hasProfile(t, pprofFile)
}

func hasProfile(t *testing.T, path string) {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		t.Errorf("no profile of the processor was written: %v", err)
	}
}

func TestTitleNamesWhatIsNotThePresets(t *testing.T) {
	for _, c := range []struct {
		change func(*measurement)
		want   string
	}{
		{func(*measurement) {}, "300M on "},
		{func(m *measurement) { m.config.Seq = 8192 }, "300M with sequences of 8192 tokens on "},
		{func(m *measurement) { m.weightGradBits = 8 }, "300M with weights' gradients of 8 bits on "},
		{func(m *measurement) { m.weightGradBits, m.gradBits = 8, kernels.FloatBits }, "300M on "},
		{func(m *measurement) { m.config.D, m.config.Layers = 2048, 4 }, "300M but d 2048, 4 layers, 16 heads, ff"},
		{func(m *measurement) { m.muon, m.muonSteps = true, 3 }, "300M with 3 steps of Muon on "},
		{func(m *measurement) { m.documents.Separate, m.length = true, 500 },
			"300M with separate documents of 500 tokens on "},
	} {
		m := recorded(t)
		c.change(&m)
		if got := m.title(); !strings.HasPrefix(got, c.want) {
			t.Errorf("the title is %q, want it to begin with %q", got, c.want)
		}
	}
}

// A bar of an exchange says milliseconds and rate, and has the colour of its arithmetic: waiting is no exchange.
func TestBarsOfExchanges(t *testing.T) {
	b := recordedTogether(t).exchangeBars()
	p := b.Panels[0]
	if want := []string{"AllReduce", "Broadcast"}; !slices.Equal(b.Labels, want) {
		t.Errorf("bars of %v, want %v", b.Labels, want)
	}
	if want := []string{"10.1 ms, 244.1 GB/s", "3.8 ms, 280.0 GB/s"}; !slices.Equal(p.Texts, want) {
		t.Errorf("bars say %q, want %q", p.Texts, want)
	}
	if integers, floats := p.Parts[0].Values, p.Parts[1].Values; !slices.Equal(integers, []float64{10.05, 0}) ||
		!slices.Equal(floats, []float64{0, 3.75}) {
		t.Errorf("bars of %v in integers and %v in floats", integers, floats)
	}
}
