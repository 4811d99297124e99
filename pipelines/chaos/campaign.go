package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// campaign makes rounds, each of them a run that is disturbed.
type campaign struct {
	self     string   // this program
	programs string   // folder of the others
	dir      string   // of the data
	words    []string // for pipeline run
	out      io.Writer
	each     int // faults of a round
	servers  int // event servers, where they are processes of their own
	ackWait  time.Duration
	limit    time.Duration

	expected outcome        // of an undisturbed run
	counts   map[string]int // of its files, by class
	stages   []string
}

//go:embed chaos.yml
var pipelineFile []byte

// prepare makes the undisturbed run.
func (k *campaign) prepare(ctx context.Context) error {
	var err error
	if k.dir, err = filepath.Abs(k.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		return err
	}
	if len(k.words) == 0 {
		if k.words, err = k.ownPipeline(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, k.limit, fmt.Errorf("the run took longer than --limit %s", k.limit))
	defer cancel()
	t, err := k.start(true)
	if err != nil {
		return err
	}
	defer t.end()
	began := time.Now()
	if _, err = t.finish(ctx); err != nil {
		return fmt.Errorf("undisturbed: %w", err)
	}
	if k.expected, err = t.outcome(ctx); err != nil {
		return fmt.Errorf("undisturbed: %w", err)
	}
	if all := compare(k.expected, k.expected); len(all) > 0 {
		return fmt.Errorf("undisturbed: %s", strings.Join(all, "\n"))
	}
	w := newWatch(k.data())
	w.look()
	k.counts, k.stages = w.counts, k.expected.stages()
	fmt.Fprintf(k.out, "undisturbed: %s, %d artifacts, %d events in %s\n", strings.Join(k.stages, ", "),
		len(k.expected.artifacts), len(k.expected.journal), time.Since(began).Round(100*time.Millisecond))
	return nil
}

// ownPipeline writes the small pipeline and its sources.
func (k *campaign) ownPipeline() (words []string, err error) {
	file := filepath.Join(k.dir, "chaos.yml")
	err = os.WriteFile(file, pipelineFile, 0o644)
	words = []string{"--preset", "nano"}
	r := rand.New(rand.NewPCG(15, 1))
	for i := range 6 {
		var b strings.Builder
		for range 8000 {
			fmt.Fprintf(&b, "%s ", lexicon[int(r.ExpFloat64()*8)%len(lexicon)])
		}
		source := filepath.Join(k.dir, fmt.Sprintf("source-%d.txt", i))
		err = errors.Join(err, os.WriteFile(source, []byte(b.String()), 0o644))
		words = append(words, "--source", source)
	}
	return append(words, file), err
}

var lexicon = strings.Fields("the of and a to in he was it his that with as had her she for not on at but be they " +
	"him all said which this from is were one so there we out up what their been who when an by if no my me")

// round makes a run that is disturbed as the seed says, and compares it with the undisturbed one.
func (k *campaign) round(ctx context.Context, seed uint64) (struck int, err error) {
	s := draw(seed, k.each, k.counts, k.stages, k.servers)
	limited, cancel := context.WithTimeoutCause(ctx, k.limit, fmt.Errorf("the run took longer than --limit %s", k.limit))
	defer cancel()
	t, err := k.start(s.ownServer)
	if err != nil {
		return 0, err
	}
	defer t.end()
	began := time.Now()
	calm, atPeace := context.WithCancel(limited)
	over := make(chan struct{})
	go func() { t.disturb(calm, s.strikes); close(over) }()
	_, err = t.finish(limited)
	atPeace()
	<-over
	if err == nil {
		err = t.same(limited)
	}
	if err != nil {
		return int(t.struck.Load()), fmt.Errorf("%w\n%s", err, s)
	}
	fmt.Fprintf(k.out, "ok      seed %d: %d faults in %s\n", seed, t.struck.Load(),
		time.Since(began).Round(100*time.Millisecond))
	return int(t.struck.Load()), nil
}

// same compares the run, once it is over, with the undisturbed one.
func (t *trial) same(ctx context.Context) error {
	if err := t.quiet(ctx); err != nil {
		return err
	}
	// The command once more removes what killed processes have left, and finds nothing to do.
	said, err := t.finish(ctx)
	if err != nil {
		return err
	}
	if !strings.Contains(said, "nothing is left to do") {
		return fmt.Errorf("the launcher ended with status 0, and the same command found something to do:\n%s", tail(said))
	}
	got, err := t.outcome(ctx)
	if err != nil {
		return err
	}
	if all := compare(t.expected, got); len(all) > 0 {
		return errors.New(strings.Join(all, "\n"))
	}
	return nil
}
