package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/inference"
	"bitnet1/shared/lm/model"
)

// packedKinds are the kinds of models that are packed and measured.
var (
	kindsInOrder = []string{"v76 strict", "v76 stream 4", "v77"}
	packedKinds  = map[string]func(model.Config) model.Config{
		"v76 strict":   func(c model.Config) model.Config { c.StreamBits = 1; return c.V76() },
		"v76 stream 4": func(c model.Config) model.Config { c.StreamBits = 4; return c.V76() },
		"v77":          model.Config.V77,
	}
)

// streams are the numbers of sequences that are decoded together.
var streams = []int{1, 4, 16}

const (
	shortPrompt = 16 // tokens before the first token that is timed by itself
	atOnce      = 16 // tokens of a round of decoding
)

// inferenceSettings say what is measured.
type inferenceSettings struct {
	Tokens  int // of a prompt, and before those that are decoded
	Rounds  int // of which the fastest counts
	Threads int
}

// inferenceSpeed is what was measured of one model.
type inferenceSpeed struct {
	Name       string
	LlamaCpp   bool
	Weights    float64
	File       int64           // bytes
	Open       time.Duration   // with the file in the page cache; 0: not measured
	FirstToken time.Duration   // a new session and a short prompt, of a model that is open
	Prompt     float64         // tokens per second
	Decode     map[int]float64 // by the number of streams: tokens per second of all streams
	Resident   int64           // bytes, the most that were resident with one stream
}

// measure measures the packed model at path.
func (s inferenceSettings) measure(path string) (m inferenceSpeed, err error) {
	start := time.Now()
	net, err := inference.Open(path)
	if err != nil {
		return m, err
	}
	m.Open = time.Since(start)
	info, err := os.Stat(path)
	if err != nil {
		return m, err
	}
	m.File, m.Decode = info.Size(), make(map[int]float64)
	for _, p := range net.Config.Parameters() {
		if len(p.Shape) > 1 {
			m.Weights += float64(p.Size())
		}
	}
	prompt, random := make([]int32, s.Tokens), rand.New(rand.NewPCG(3, 4))
	for i := range prompt {
		prompt[i] = int32(random.IntN(net.Config.Vocab))
	}
	m.FirstToken, err = s.fastest(func() error {
		_, err := s.prompted(net, prompt[:shortPrompt])
		return err
	})
	if err != nil {
		return m, err
	}
	if err := s.measureStreams(net, prompt, &m); err != nil {
		return m, err
	}
	return m, net.Close()
}

// prompted returns a new session with a prompt.
func (s inferenceSettings) prompted(net *inference.Model, prompt []int32) (*inference.Session, error) {
	session, err := net.NewSession(inference.Options{Workers: s.Threads})
	if err == nil {
		_, err = session.Prefill(prompt)
	}
	return session, err
}

// measureStreams measures the prompt, and decoding of one stream and of several.
func (s inferenceSettings) measureStreams(net *inference.Model, prompt []int32, m *inferenceSpeed) error {
	var sessions []*inference.Session
	for _, n := range streams {
		for len(sessions) < n {
			session, err := s.prompted(net, prompt)
			if err != nil {
				return err
			}
			sessions = append(sessions, session)
		}
		if n == 1 {
			took, err := s.fastest(func() error {
				err := sessions[0].Truncate(0)
				if err == nil {
					_, err = sessions[0].Prefill(prompt)
				}
				return err
			})
			if err != nil {
				return err
			}
			m.Prompt = float64(s.Tokens) / took.Seconds()
		}
		took, err := s.fastest(func() error { return decodeTogether(net, sessions, s.Tokens) })
		if err != nil {
			return err
		}
		m.Decode[n] = float64(n*atOnce) / took.Seconds()
		if n == 1 {
			if m.Resident, err = resident(); err != nil {
				return err
			}
		}
	}
	return nil
}

// fastest is the time of the fastest round of f.
func (s inferenceSettings) fastest(f func() error) (least time.Duration, err error) {
	least = math.MaxInt64
	for range s.Rounds {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		least = min(least, time.Since(start))
	}
	return least, nil
}

// decodeTogether decodes some tokens of every session, after n tokens.
func decodeTogether(m *inference.Model, sessions []*inference.Session, n int) error {
	next := make([]int32, len(sessions))
	for _, s := range sessions {
		if err := s.Truncate(n); err != nil {
			return err
		}
	}
	for i := range int32(atOnce) {
		for j := range next {
			next[j] = i + int32(j)
		}
		if _, err := m.DecodeTogether(sessions, next); err != nil {
			return err
		}
	}
	return nil
}

// resident is the most memory of this process that was resident at a time, in bytes.
func resident() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10, nil
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}

// writeRandom packs a model of random weights.
func writeRandom(path string, c model.Config) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(bit2.WriteRandom(f, c), f.Close())
}
