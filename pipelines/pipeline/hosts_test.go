package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/s3/s3test"
)

// prepared writes a pipeline file that makes a dataset of many sources, with two workers a stage.
func prepared(t *testing.T) (file string) {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(8, 4))
	for i := range 32 {
		var b strings.Builder
		for range 20_000 {
			fmt.Fprintf(&b, "%c%c ", 'a'+r.IntN(26), 'a'+r.IntN(26))
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.txt", i)), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(dir, "prepared.yml")
	text := fmt.Sprintf("sources: [%s]\nworkers: {tokenize: 2}\n"+
		"stages:\n  tokenize: {}\n  shard: {sequence_length: 64}\n", filepath.Join(dir, "*.txt"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// manifest is the digest of the dataset's manifest that a run has made.
func (w *world) manifest(run string) string {
	w.t.Helper()
	sealed, err := journal.Open(w.data).Read(run, event.DatasetSealed{}.Kind())
	if err != nil || len(sealed) != 1 {
		w.t.Fatalf("%d datasets: %v", len(sealed), err)
	}
	body, err := event.Into[event.DatasetSealed](sealed[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return body.Manifest.Digest
}

// serveAlways is a host's service: a stage with two workers that is started again whenever it ends.
func (w *world) serveAlways(ctx context.Context, stage, run string) {
	for ctx.Err() == nil {
		cmd := w.command(stage, "serve", "--run", run, "--workers", "2")
		if err := cmd.Start(); err != nil {
			return
		}
		end := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(os.Interrupt) })
		_ = cmd.Wait()
		end()
	}
}

// TestTokenizeOnFourHosts spreads the sources of a run over eight workers on four hosts that share a bucket and nothing
// else, and compares the manifest with that of one host alone.
func TestTokenizeOnFourHosts(t *testing.T) {
	storage := s3test.Start(t)
	file := prepared(t)
	alone := newWorld(t)
	alone.must("pipeline", "run", "--preset", "nano", "--run", "r", file)

	launcher := onServer(t)
	launcher.env = append(launcher.env, "BITNET1_BUCKET="+storage.URL("hosts"))
	var services sync.WaitGroup
	defer services.Wait()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var hosts []*world
	for range 3 {
		host := newWorld(t)
		host.env = launcher.env
		hosts = append(hosts, host)
		services.Go(func() { host.serveAlways(ctx, "tokenize", "r") })
	}
	launcher.must("pipeline", "run", "--preset", "nano", "--run", "r", file)
	if got, want := launcher.manifest("r"), alone.manifest("r"); got != want {
		t.Errorf("four hosts make the manifest %.12s, one host makes %.12s", got, want)
	}
	for i, host := range hosts {
		made, err := filepath.Glob(filepath.Join(host.data, "objects", "*", "*"))
		if err != nil || len(made) == 0 {
			t.Errorf("host %d of the others has made nothing (%v)", i+1, err)
		}
	}
	seen := map[string]bool{}
	for _, k := range launcher.announced("r") {
		if seen[k.ID] {
			t.Errorf("%s was announced twice", k.Kind)
		}
		seen[k.ID] = true
	}
}
