package model

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

func TestPresetSizes(t *testing.T) {
	for name, want := range map[string]int{"300M": 316, "75M": 76, "nano": 0} {
		c, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, p := range c.Parameters() {
			n += p.Size()
		}
		if n/1e6 != want {
			t.Errorf("%s has %d parameters, want about %d M", name, n, want)
		}
	}
	if _, err := Preset("7B"); err == nil {
		t.Error("an unknown preset must be refused")
	}
}

func TestConfigJSON(t *testing.T) {
	const text = `{"vocab":61,"d":32,"layers":2,"heads":2,"ff":64,"seq":20,"attention":"pointer","rwsp_k":4,` +
		`"kshift_layers":[],"kshift_offset":1,"kshift_self":true,"alibi":true,"eps":0.00001,"stream_bits":1}`
	var c Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c.KShiftLayers = nil
	back, err := json.Marshal(c)
	if err != nil || string(back) != text {
		t.Errorf("round trip gave %s, %v", back, err)
	}
}

// What a v76 does not use is not in its JSON, whether it is 0 or what the reference writes; what a v77 uses is.
func TestConfigJSONOfV77(t *testing.T) {
	v76, _ := Preset("nano")
	want, err := json.Marshal(v76)
	if err != nil {
		t.Fatal(err)
	}
	off := v76
	off.HiddenBits, off.QueryBits, off.ValueBits, off.ReadBits, off.CodebookBits = 1, 1, 1, 1, 1
	if got, err := json.Marshal(off); err != nil || string(got) != string(want) {
		t.Errorf("a v76 whose options are 1 bit has the JSON %s, %v, want %s", got, err, want)
	}
	v77 := v76.V77()
	if text, err := json.Marshal(v77); err != nil || strings.Contains(string(text), "query_bits") {
		t.Errorf("a v77 whose queries are signs has the JSON %s, %v, want none of query_bits", text, err)
	}
	v77.QueryBits, v77.ReadBits = 2, 3
	text, err := json.Marshal(v77)
	const options = `"stream_bits":4,"hidden_bits":4,"query_bits":2,"value_bits":4,"read_bits":3,` +
		`"codebook_bits":4,"hadamard":128}`
	if err != nil || !strings.HasSuffix(string(text), options) {
		t.Errorf("a v77 has the JSON %s, %v, want one that ends with %s", text, err, options)
	}
	var back Config
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, v77) {
		t.Errorf("round trip gave %+v, %v, want %+v", back, err, v77)
	}
}

// Any option of v77 makes one.
func TestHasV77(t *testing.T) {
	v76, _ := Preset("nano")
	v76.HiddenBits, v76.StreamBits = 1, 4
	if v76.HasV77() {
		t.Errorf("%+v is a v77", v76)
	}
	for i, set := range []func(c *Config){
		func(c *Config) { c.HiddenBits = 2 }, func(c *Config) { c.QueryBits = 2 }, func(c *Config) { c.ValueBits = 2 },
		func(c *Config) { c.ReadBits = 2 }, func(c *Config) { c.CodebookBits = 2 }, func(c *Config) { c.Hadamard = 2 },
	} {
		c := v76
		if set(&c); !c.HasV77() {
			t.Errorf("option %d: %+v is no v77", i, c)
		}
	}
}

// v77 rotates the largest blocks that the width allows, up to 128.
func TestV77Rotates(t *testing.T) {
	for d, want := range map[int]int{1024: 128, 128: 128, 96: 32, 48: 16, 6: 2, 7: 1} {
		c, _ := Preset("nano")
		c.D, c.Heads = d, 1
		if c = c.V77(); c.Hadamard != want || c.Validate() != nil {
			t.Errorf("d = %d has blocks of %d, %v, want %d", d, c.Hadamard, c.Validate(), want)
		}
	}
}

func TestOptionsOfV77ThatDoNotGoTogether(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		"read_bits is 4 and value_bits 3":                         func(c *Config) { c.ValueBits = 3 },
		"read_bits is 4 and value_bits 1":                         func(c *Config) { c.ValueBits = 0 },
		"hadamard is 12, want 0 or a power of two":                func(c *Config) { c.D, c.Hadamard = 24, 12 },
		"hadamard is 16, want 0 or a power of two that divides d": func(c *Config) { c.D, c.Hadamard = 24, 16 },
		"d is 33026: logits of 8 stream_bits and 8 codebook_bits are sums that may pass 32 bits": func(c *Config) {
			c.D, c.Heads, c.StreamBits, c.CodebookBits, c.Hadamard = 33026, 1, 8, 8, 2
		},
	} {
		c, _ := Preset("nano")
		c = c.V77()
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	for name, c := range map[string]Config{
		"the longest sums": {D: 33025, StreamBits: 8, CodebookBits: 8},
		"a float stream":   {D: maxWidth, StreamBits: kernels.FloatBits, CodebookBits: 8},
	} {
		c.Vocab, c.Layers, c.Heads, c.FF, c.Seq, c.Eps = 2, 1, 1, 1, 1, 1
		if err := c.V76().Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"heads":  func(c *Config) { c.Heads = 7 },
		"layers": func(c *Config) { c.Layers = 0 },
		"vocab":  func(c *Config) { c.Vocab = 1 << 40 },
		"shift":  func(c *Config) { c.KShiftLayers = []int{4} },
		"bits":   func(c *Config) { c.StreamBits = 12 },
		"kind":   func(c *Config) { c.Attention = "linear" },
		"k":      func(c *Config) { c.RWSPK = 0 },
		"eps":    func(c *Config) { c.Eps = 0 },
	} {
		c, _ := Preset("nano")
		spoil(&c)
		if c.Validate() == nil {
			t.Errorf("%s: impossible configuration accepted: %+v", name, c)
		}
	}
}

// Every number of a configuration is taken at the ends of its range, and refused beyond by its name.
func TestRangesOfConfigurations(t *testing.T) {
	for _, c := range []struct {
		name  string
		good  []float64
		bad   []float64
		field func(c *Config, v float64)
	}{
		{"vocab", []float64{2, 1 << 20}, []float64{1, 1<<20 + 1}, func(c *Config, v float64) { c.Vocab = int(v) }},
		{"d", []float64{1, 1 << 16}, []float64{0, 1<<16 + 1}, func(c *Config, v float64) { c.D, c.Heads = int(v), 1 }},
		{"layers", []float64{1, 1 << 10}, []float64{0, 1<<10 + 1}, func(c *Config, v float64) { c.Layers = int(v) }},
		{"heads", []float64{1, 1 << 16}, []float64{0, -1, 1<<16 + 1},
			func(c *Config, v float64) { c.D, c.Heads = 1<<16, int(v) }},
		{"ff", []float64{1, 1 << 16}, []float64{0, 1<<16 + 1}, func(c *Config, v float64) { c.FF = int(v) }},
		{"seq", []float64{1, 1 << 20}, []float64{0, 1<<20 + 1}, func(c *Config, v float64) { c.Seq = int(v) }},
		{"kshift_offset", []float64{0, 1 << 20}, []float64{-1, 1<<20 + 1},
			func(c *Config, v float64) { c.KShiftOffset = int(v) }},
		{"rwsp_k", []float64{1, 16}, []float64{0, 17}, func(c *Config, v float64) { c.RWSPK = int(v) }},
		{"eps", []float64{1e-30, 1}, []float64{0, -1, math.Inf(1), math.NaN()},
			func(c *Config, v float64) { c.Eps = v }},
		{"stream_bits", []float64{1, 8, 16}, []float64{0, 9, 15, 17},
			func(c *Config, v float64) { c.StreamBits = int(v) }},
		{"hidden_bits", []float64{0, 1, 8}, []float64{-1, 9, 16}, func(c *Config, v float64) { c.HiddenBits = int(v) }},
		{"query_bits", []float64{0, 1, 8}, []float64{-1, 9, 16}, func(c *Config, v float64) { c.QueryBits = int(v) }},
		{"value_bits", []float64{0, 1, 8}, []float64{-1, 9, 16}, func(c *Config, v float64) { c.ValueBits = int(v) }},
		{"read_bits", []float64{0, 1, 8}, []float64{-1, 9, 16},
			func(c *Config, v float64) { c.ValueBits, c.ReadBits = 8, int(v) }},
		{"codebook_bits", []float64{0, 1, 8}, []float64{-1, 9, 16},
			func(c *Config, v float64) { c.CodebookBits = int(v) }},
		{"hadamard", []float64{0, 1, 2, 128}, []float64{-2, 3, 256, 1 << 17},
			func(c *Config, v float64) { c.Hadamard = int(v) }},
		{"kshift_layers", []float64{0, 3}, []float64{-1, 4},
			func(c *Config, v float64) { c.KShiftLayers = []int{int(v)} }},
	} {
		for i, v := range append(c.good, c.bad...) {
			config, _ := Preset("nano")
			c.field(&config, v)
			switch err := config.Validate(); {
			case i < len(c.good) && err != nil:
				t.Errorf("%s %g: %v", c.name, v, err)
			case i >= len(c.good) && (err == nil || !strings.Contains(err.Error(), c.name)):
				t.Errorf("%s %g: %v", c.name, v, err)
			}
		}
	}
	pointer, _ := Preset("nano")
	pointer = pointer.V75()
	if pointer.RWSPK = 0; pointer.Validate() != nil {
		t.Error("a pointer has no survivors, and rwsp_k does not matter")
	}
}

// Options have the defaults that they say, are taken at the ends of their ranges, and refused beyond.
func TestRangesOfOptions(t *testing.T) {
	c := small()
	o := Options{}
	if err := o.ensureDefaults(c); err != nil || o.Batch != 1 || o.Seq != c.Seq || o.ScaleBits != 16 ||
		o.GradBits != kernels.FloatBits {
		t.Errorf("defaults %+v, %v", o, err)
	}
	rank := func(rank, ranks int) kernels.Communicator { return cpu.NewCommunicator(rank, ranks, nil, nil) }
	for name, options := range map[string][2][]Options{
		"batch":      {{{Batch: 1}, {Batch: 1 << 20}}, {{Batch: -1}, {Batch: 1<<20 + 1}}},
		"seq":        {{{Seq: 1}, {Seq: c.Seq}}, {{Seq: -1}, {Seq: c.Seq + 1}}},
		"scale bits": {{{ScaleBits: 16}, {ScaleBits: 32}}, {{ScaleBits: 8}, {ScaleBits: 33}}},
		"grad bits": {{{GradBits: 2}, {GradBits: 8}, {GradBits: 16}},
			{{GradBits: 1}, {GradBits: 9}, {GradBits: 15}}},
		"weight grad bits": {{{GradBits: 4, WeightGradBits: 2}, {GradBits: 4, WeightGradBits: 8}, {WeightGradBits: 8}},
			{{GradBits: 4, WeightGradBits: 1}, {GradBits: 4, WeightGradBits: 9}, {WeightGradBits: 16}}},
		"flip threshold": {{{FlipThreshold: 1}, {FlipThreshold: 126}}, {{FlipThreshold: -1}, {FlipThreshold: 127}}},
		"latents":        {{{Bonsai: true}}, {{Bonsai: true, FlipThreshold: 1}}},
		"ranks": {
			{{FixedSums: true}, {FixedSums: true, Communicator: rank(0, 1)}, {FixedSums: true, Communicator: rank(1, 2)}},
			{
				{Communicator: rank(0, 2)},
				{FixedSums: true, Communicator: rank(2, 2)},
				{FixedSums: true, Communicator: rank(-1, 2)},
				{FixedSums: true, Communicator: rank(0, 2), Inference: true},
			},
		},
	} {
		for _, o := range options[0] {
			if err := o.ensureDefaults(c); err != nil {
				t.Errorf("%+v: %v", o, err)
			}
		}
		for _, o := range options[1] {
			if err := o.ensureDefaults(c); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%+v: %v", o, err)
			}
		}
	}
}

// Options that no device could compute with a v77 are refused before there is a model.
func TestOptionsOfV77(t *testing.T) {
	codebook, hidden, reads := small(), small(), small()
	codebook.CodebookBits = 2
	hidden.HiddenBits = 8
	reads.ValueBits, reads.ReadBits = 8, 8
	wide := codebook
	wide.Vocab, wide.CodebookBits = 66312, 8
	for _, c := range []struct {
		config Config
		good   Options
		bad    Options
		want   string
	}{
		{codebook, Options{}, Options{FlipThreshold: 1}, "2 codebook_bits"},
		{wide, Options{GradBits: 7}, Options{GradBits: 8}, "vocab is 66312 and codebook_bits 8: sums over 66312 channels"},
		{wide, Options{GradBits: 8, WeightGradBits: 7}, Options{GradBits: 2, WeightGradBits: 8}, "sums over 66312 channels"},
		{hidden, Options{GradBits: 8, WeightGradBits: 7, Batch: 66312, Seq: 1},
			Options{GradBits: 2, WeightGradBits: 8, Batch: 66312, Seq: 1}, "66312 rows"},
		{hidden, Options{GradBits: 8, Batch: 66311, Seq: 1}, Options{GradBits: 8, Batch: 66312, Seq: 1}, "66312 rows"},
		{reads, Options{GradBits: 8, Batch: 66311, Seq: 1}, Options{GradBits: 8, Batch: 66312, Seq: 1}, "66312 rows"},
		{reads, Options{Batch: 66312, Seq: 1}, Options{GradBits: 8, Batch: 6029, Seq: 11}, "66319 rows"},
	} {
		if err := c.good.ensureDefaults(c.config); err != nil {
			t.Errorf("%+v: %v", c.good, err)
		}
		if _, err := New(c.config, nil, c.bad); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want an error with %q", c.bad, err, c.want)
		}
	}
}
