package stage

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// StepTime is what a step of a job took. Steps overlap, and a step can have several threads: what is said is a sum.
type StepTime struct {
	Step string  `json:"step"`
	CPU  float64 `json:"cpu_seconds"`  // of processor time
	Wall float64 `json:"wall_seconds"` // by the clock
}

// Times adds up what the steps of a job take, in the order in which they are first heard of. It is safe for concurrent
// use; the zero value is empty.
//
// Times are about an attempt and a machine. They are never part of an artifact or an event, which equal inputs make
// alike.
type Times struct {
	mu    sync.Mutex
	steps []StepTime
}

// Do does a piece of a step's work and counts its time. Only what this goroutine itself does counts as processor time.
func (t *Times) Do(step string, work func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	started, before := time.Now(), processorTime(unix.CLOCK_THREAD_CPUTIME_ID)
	work()
	t.Add(step, processorTime(unix.CLOCK_THREAD_CPUTIME_ID)-before, time.Since(started))
}

// Since counts the time of a whole process, all its threads, since the mark.
func (t *Times) Since(step string, m Mark) {
	now := Now()
	t.Add(step, now.processor-m.processor, now.clock.Sub(m.clock))
}

// Mark is a moment in the life of a process.
type Mark struct {
	clock     time.Time
	processor time.Duration
}

// Now is the present moment.
func Now() Mark { return Mark{time.Now(), processorTime(unix.CLOCK_PROCESS_CPUTIME_ID)} }

// Add counts time that was measured elsewhere.
func (t *Times) Add(step string, cpu, wall time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.steps, func(s StepTime) bool { return s.Step == step })
	if i < 0 {
		i = len(t.steps)
		t.steps = append(t.steps, StepTime{Step: step})
	}
	t.steps[i].CPU += cpu.Seconds()
	t.steps[i].Wall += wall.Seconds()
}

// Steps returns the sums.
func (t *Times) Steps() []StepTime {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.steps)
}

// Restore begins with the sums of an earlier attempt.
func (t *Times) Restore(steps []StepTime) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = slices.Clone(steps)
}

// processorTime is what a thread or the process has used; 0 where the system does not say.
func processorTime(clock int32) time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(clock, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// JobTimes is the content of a file of times.
type JobTimes struct {
	Stage string     `json:"stage"`
	Of    string     `json:"of"`    // what the job worked on, such as the name of a source
	Bytes int64      `json:"bytes"` // of text
	Steps []StepTime `json:"steps"`
}

// TimesFolder is where files of times lie, in the folder of what a job makes: that holds the same bytes whatever work
// took.
const TimesFolder = "times"

// TimesFile is a file of times, seen from that folder.
func TimesFile(name string) string { return filepath.Join(TimesFolder, name+".json") }

// LiveTimes is LiveFile for a file in TimesFolder: KeepTimes leaves the file there, in place of an artifact.
func (j *Job[P]) LiveTimes(name string) (string, error) {
	dir, err := j.Scratch()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, TimesFolder+"-"+name)
	return path, j.show(path, filepath.Join(TimesFolder, name), true)
}

// KeepTimes leaves what is in a file of LiveTimes.
func (j *Job[P]) KeepTimes(name string) error {
	dir, err := j.Scratch()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, TimesFolder+"-"+name))
	if err != nil {
		return err
	}
	return j.leave(filepath.Join(TimesFolder, name), b)
}

// WriteTimes leaves a file of times where people look for the job's outputs. It is no artifact: no event mentions it
// and nothing depends on it.
func (j *Job[P]) WriteTimes(name string, t JobTimes) error {
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return j.leave(TimesFile(name), append(b, '\n'))
}
