package index

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/stage"
)

// Curve is how a run has trained, read from its log and from the times beside it. A long log is kept in fewer points
// than it has lines.
type Curve struct {
	steps  map[string]*series // by the keys of the log; Point.At is tokens
	rate   series             // tokens a second; Point.At is seconds of training
	marks  []Validation
	log    trainlog.Follower
	times  trainlog.Follower
	before struct{ step, seconds float64 } // of the last line of the times

	Changed   int // counts changes
	Restarted int // counts how often training went on from an earlier step, or with another log
}

// Validation is the loss of a checkpoint on validation text.
type Validation struct {
	Step   int32
	Tokens float64
	Bits   float64
}

// The axes that a curve can be drawn over.
const (
	OverSteps   = "steps"
	OverTokens  = "tokens"
	OverSeconds = "seconds"
)

// Rate is the key of the tokens a second; the other keys are those of the log.
const Rate = "rate"

// logged are the keys of the log that are kept.
var logged = []string{"train_bpc", "lr", "grad_norm", "flipped"}

// Keys are what curves can be drawn of.
func Keys() []string { return append([]string{Rate}, logged...) }

func newCurve() *Curve { return &Curve{steps: map[string]*series{}} }

// follow reads what was appended to the log and the times in a folder. What is missing is not there yet.
func (c *Curve) follow(open func(string) (*os.File, error), dir string) error {
	err := next(open, filepath.Join(dir, trainlog.FileName), &c.log, func() {
		c.steps, c.marks = map[string]*series{}, nil
		c.Restarted++
	}, c.addLine)
	if err != nil {
		return err
	}
	return next(open, filepath.Join(dir, stage.TimesFolder, trainlog.TimesFileName), &c.times, func() {
		c.rate, c.before.step, c.before.seconds = series{}, 0, 0
		c.Restarted++
	}, c.addTime)
}

func next(open func(string) (*os.File, error), path string, f *trainlog.Follower, restart func(),
	line func([]byte)) error {
	file, err := open(path)
	if err != nil {
		return ignoreMissing(err)
	}
	defer file.Close()
	return f.Next(file, restart, line)
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) || err == fs.ErrNotExist {
		return nil
	}
	return err
}

func (c *Curve) addLine(line []byte) {
	var step, tokens float64
	bits := math.NaN()
	values := make([]float64, len(logged))
	for i := range values {
		values[i] = math.NaN()
	}
	event, ok := trainlog.Values(line, func(key []byte, v float64) {
		switch string(key) {
		case "step":
			step = v
		case "tokens":
			tokens = v
		case "val_bpc":
			bits = v
		}
		for i, name := range logged {
			if string(key) == name {
				values[i] = v
			}
		}
	})
	if !ok || step < 0 || step > math.MaxInt32 {
		return // no line of the log
	}
	c.Changed++
	switch string(event) {
	case trainlog.EventStep:
		for i, name := range logged {
			if math.IsNaN(values[i]) {
				continue
			}
			if c.steps[name] == nil {
				c.steps[name] = &series{}
			}
			c.steps[name].add(int32(step), tokens, float32(values[i]))
		}
	case trainlog.EventCheckpoint:
		if !math.IsNaN(bits) {
			c.marks = append(c.marks, Validation{int32(step), tokens, bits})
		}
	}
}

func (c *Curve) addTime(line []byte) {
	var step, seconds, rate float64
	if _, ok := trainlog.Values(line, func(key []byte, v float64) {
		switch string(key) {
		case "step":
			step = v
		case "seconds":
			seconds = v
		case "tokens_per_second":
			rate = v
		}
	}); !ok || step <= c.before.step || step > math.MaxInt32 {
		return
	}
	c.before.seconds += (step - c.before.step) * seconds
	c.before.step = step
	c.rate.add(int32(step), c.before.seconds, float32(rate))
	c.Changed++
}

// Line is a piece of a curve to be drawn: the values of one key. Each point is the mean, the lowest and the highest of
// the samples up to it.
type Line struct {
	Over            []float64
	Mean, Low, High []float32

	Final int   // points, from the first, that will not change any more
	Done  int32 // step of the last of them
}

// After is the part of a curve after a step, in at most n points. Steps whose time is not known are left out over
// seconds.
func (c *Curve) After(key, over string, step int32, n int) Line {
	s := c.steps[key]
	if key == Rate {
		s = &c.rate
	}
	if s == nil {
		return Line{Done: step}
	}
	points, done := s.after(step, n)
	line := Line{Done: step}
	for _, p := range points {
		x := c.x(over, p.Step, p.At, key == Rate)
		if math.IsNaN(x) {
			continue
		}
		line.Over = append(line.Over, x)
		line.Mean, line.Low, line.High = append(line.Mean, p.Mean), append(line.Low, p.Low), append(line.High, p.High)
		if p.Step <= done {
			line.Final, line.Done = len(line.Over), p.Step
		}
	}
	return line
}

// x is where a point lies. at is its seconds if it is timed, and its tokens otherwise.
func (c *Curve) x(over string, step int32, at float64, timed bool) float64 {
	switch {
	case over == OverSteps:
		return float64(step)
	case over == OverSeconds && !timed:
		return c.rate.at(step)
	case over == OverTokens && timed:
		if s := c.steps["train_bpc"]; s != nil {
			return s.at(step)
		}
		return math.NaN()
	}
	return at
}

// Validations are the losses of the checkpoints, as pairs of where they lie and bits.
func (c *Curve) Validations(over string) [][2]float64 {
	var all [][2]float64
	for _, v := range c.marks {
		if x := c.x(over, v.Step, v.Tokens, false); !math.IsNaN(x) {
			all = append(all, [2]float64{x, v.Bits})
		}
	}
	return all
}
