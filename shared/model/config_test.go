package model

import (
	"encoding/json"
	"testing"
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
