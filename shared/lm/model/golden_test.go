package model

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// goldenFolder may name a folder of further files that the PyTorch reference's generator wrote.
const goldenFolder = "BITNET1_GOLDEN"

// golden is one file of the reference: float64 results of one configuration.
type golden struct {
	config Config
	run    struct {
		Gamma float64 `json:"gamma"`
		Tau   float64 `json:"tau"`
		Mix   float64 `json:"mix"`
	}
	adam struct {
		LR    float64    `json:"lr"`
		Betas [2]float64 `json:"betas"`
		Eps   float64    `json:"eps"`
		Decay float64    `json:"weight_decay"` // of matrices
		Clip  float64    `json:"clip"`         // largest norm of the gradients; 0: any
	}
	muon *struct { // of the blocks' weights, in cases that have it
		LR       float64 `json:"lr"`
		Momentum float64 `json:"momentum"`
		Steps    int     `json:"steps"`
	}
	floats map[string][]float64
	ints   map[string][]int32
}

func readGolden(path string) (*golden, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint64(file)
	header, data := file[8:8+size], file[8+size:]
	var tensors map[string]json.RawMessage
	if err := json.Unmarshal(header, &tensors); err != nil {
		return nil, err
	}
	g := &golden{floats: map[string][]float64{}, ints: map[string][]int32{}}
	for name, raw := range tensors {
		if name == "__metadata__" {
			if err := g.readMetadata(raw); err != nil {
				return nil, err
			}
			continue
		}
		var t struct {
			DType   string `json:"dtype"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &t); err != nil {
			return nil, err
		}
		for at := t.Offsets[0]; at < t.Offsets[1]; at += 8 {
			word := binary.LittleEndian.Uint64(data[at:])
			switch t.DType {
			case "F64":
				g.floats[name] = append(g.floats[name], math.Float64frombits(word))
			case "I64":
				g.ints[name] = append(g.ints[name], int32(word))
			default:
				return nil, fmt.Errorf("%s: tensor %s has type %s", path, name, t.DType)
			}
		}
	}
	return g, nil
}

func (g *golden) readMetadata(raw []byte) error {
	var meta map[string]string
	if err := json.Unmarshal(raw, &meta); err != nil {
		return err
	}
	for key, to := range map[string]any{"config": &g.config, "run": &g.run, "adam": &g.adam} {
		if err := json.Unmarshal([]byte(meta[key]), to); err != nil {
			return fmt.Errorf("metadata %s: %w", key, err)
		}
	}
	if muon := meta["muon"]; muon != "" {
		return json.Unmarshal([]byte(muon), &g.muon)
	}
	return nil
}

// parameters returns the tensors whose names begin with prefix.
func (g *golden) parameters(prefix string) []Parameter {
	list := g.config.Parameters()
	for i := range list {
		list[i].Data = narrow(g.floats[prefix+list[i].Name])
	}
	return list
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func (g *golden) settings() Settings {
	s := Settings{Gamma: g.run.Gamma, Tau: g.run.Tau, Mix: g.run.Mix}
	for l := range g.config.Layers {
		if noise, ok := g.floats[fmt.Sprintf("noise.%d", l)]; ok {
			s.Noise = append(s.Noise, narrow(noise))
		}
	}
	return s
}

// distance is ‖got - want‖ / ‖want‖, infinite where either holds what is not a number.
func distance(got []float32, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	difference := make([]float64, len(want))
	for i, w := range want {
		difference[i] = float64(got[i]) - w
	}
	if d := norm(difference) / max(norm(want), 1e-12); !math.IsNaN(d) {
		return d
	}
	return math.Inf(1)
}

func norm(x []float64) float64 {
	var squares float64
	for _, v := range x {
		squares += v * v
	}
	return math.Sqrt(squares)
}

func TestGolden(t *testing.T) {
	checkGolden(t, cpu.New(cpu.Options{}), tolerances{loss: 1e-5, norm: 1e-4, after: 2e-3})
}

// tolerances of steps with Muon, which a device may compute in bfloat16; relative.
type tolerances struct{ loss, norm, after float64 }

// checkGolden runs all golden cases on a device.
func checkGolden(t *testing.T, dev kernels.Device, muon tolerances) {
	t.Helper()
	folder := os.Getenv(goldenFolder)
	if folder == "" {
		folder = filepath.Join("testdata", "golden")
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.safetensors"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files in %s: %v", folder, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".safetensors"), func(t *testing.T) {
			g, err := readGolden(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := New(g.config, dev, Options{
				Batch: len(g.ints["tokens"]) / g.config.Seq, ScaleBits: 32, Bonsai: g.run.Mix < 1, Muon: g.muon != nil})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Load(Each(g.parameters("param."))); err != nil {
				t.Fatal(err)
			}
			checkForward(t, m, g)
			checkGradients(t, m, g)
			checkSteps(t, m, g, muon)
		})
	}
}

func checkForward(t *testing.T, m *Model, g *golden) {
	tokens := g.ints["tokens"]
	logits, err := m.Logits(tokens, 0, len(tokens), g.settings())
	if err != nil {
		t.Fatal(err)
	}
	if d := distance(logits, g.floats["logits"]); d > 1e-5 {
		t.Errorf("logits differ by %.2g of their norm", d)
	}
	for l := range g.config.Layers {
		pointers, err := m.Pointers(l)
		if err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for i, want := range g.ints[fmt.Sprintf("pointers.%d", l)] {
			// The reference lists keys after the query once all others are used up; they are not alive.
			query := i / g.config.Survivors(g.config.Seq) % g.config.Seq
			if got := pointers[i]; got != want && (got != -1 || int(want) <= query) {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("layer %d: %d of %d pointers differ", l, wrong, len(pointers))
		}
	}
	losses, err := m.Losses(tokens, g.ints["targets"], g.settings())
	if err != nil {
		t.Fatal(err)
	}
	var mean float64
	for _, v := range losses {
		mean += float64(v) / float64(len(losses))
	}
	if want := g.floats["loss"][0]; !(math.Abs(mean-want) <= 1e-5*want) {
		t.Errorf("loss %.9g, want %.9g", mean, want)
	}
}

func checkGradients(t *testing.T, m *Model, g *golden) {
	if err := m.Backward(g.ints["tokens"], g.ints["targets"], g.settings()); err != nil {
		t.Fatal(err)
	}
	gradients, err := m.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	var largest float64
	for _, p := range gradients {
		largest = max(largest, norm(g.floats["grad."+p.Name]))
	}
	for _, p := range gradients {
		want := g.floats["grad."+p.Name]
		// Some gradients vanish: that of a query's threshold, say, where the keys are equal. The reference then has
		// nothing but the rounding of float64, and there is nothing but that of float32 to be had.
		if norm(want) < 1e-14*largest {
			if got := norm(widen(p.Data)); got > 1e-7*largest {
				t.Errorf("gradient of %s has norm %.2g where it vanishes", p.Name, got)
			}
			continue
		}
		if d := distance(p.Data, want); d > 1e-4 {
			t.Errorf("gradient of %s differs by %.2g of its norm", p.Name, d)
		}
	}
}

func checkSteps(t *testing.T, m *Model, g *golden, muon tolerances) {
	allowed := tolerances{loss: 1e-5, norm: 1e-4, after: 2e-3}
	if g.muon != nil {
		allowed = muon
	}
	if g.adam.Eps != adamEps {
		t.Fatalf("the reference adds %g to the root of the mean square, updates add %g", g.adam.Eps, adamEps)
	}
	u := Update{Settings: g.settings(),
		LearningRate: g.adam.LR, Beta1: g.adam.Betas[0], Beta2: g.adam.Betas[1], Decay: g.adam.Decay, MaxNorm: g.adam.Clip}
	if g.muon != nil {
		u.Muon = Muon{LearningRate: g.muon.LR, Beta: g.muon.Momentum, Steps: g.muon.Steps}
	}
	for i, want := range g.floats["step.losses"] {
		err := m.Step(g.ints["tokens"], g.ints["targets"], u)
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Result()
		if err != nil {
			t.Fatal(err)
		}
		if !(math.Abs(r.Loss-want) <= allowed.loss*want) {
			t.Errorf("step %d: loss %.9g, want %.9g", i, r.Loss, want)
		}
		if norms := g.floats["step.norms"]; norms != nil && !(math.Abs(r.Norm-norms[i]) <= allowed.norm*norms[i]) {
			t.Errorf("step %d: the gradients' norm is %.9g, want %.9g", i, r.Norm, norms[i])
		}
	}
	parameters, err := m.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parameters {
		if d := distance(p.Data, g.floats["after."+p.Name]); d > allowed.after {
			t.Errorf("%s after the steps differs by %.2g of its norm", p.Name, d)
		}
	}
}
