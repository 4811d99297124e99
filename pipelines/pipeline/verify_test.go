package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// found is a line of verify or repair.
type found struct {
	Type, Kind, Path, Text string
	Damaged                int
}

func (w *world) found(want int, command string) (all []found) {
	w.t.Helper()
	o := w.run("pipeline", command, "--json")
	if o.status != want {
		w.t.Fatalf("%s ended with status %d, want %d:\n%s%s", command, o.status, want, tail(o.stdout), o.stderr)
	}
	for line := range strings.Lines(o.stdout) {
		var f found
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

// files are the files of the data directory that a program relies on, with their bytes, and the links with their
// targets.
func (w *world) files() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(w.data, func(path string, d fs.DirEntry, err error) error {
		inside, _ := filepath.Rel(w.data, path)
		switch {
		case err != nil, d.IsDir() && !slices.Contains([]string{"logs", "times", "report", "keys"}, d.Name()):
			return err
		case d.IsDir():
			return fs.SkipDir // only people read what is there, or, in keys, it is made anew each time
		case d.Type()&fs.ModeSymlink != 0:
			all[inside], err = os.Readlink(path)
			return err
		}
		b, err := os.ReadFile(path)
		if len(b) > 0 && d.Name() != "launcher.lock" {
			all[inside] = string(b)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// flip flips a bit of each of the files.
func (w *world) flip(paths []string, random *rand.Rand) {
	w.t.Helper()
	for _, path := range paths {
		path = filepath.Join(w.data, path)
		if target, err := os.Readlink(path); err == nil {
			digit := len(target) - 1 - random.IntN(64)
			err = errors.Join(os.Remove(path), os.Symlink(target[:digit]+"g"+target[digit+1:], path))
			if err != nil {
				w.t.Fatal(err)
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		if err := errors.Join(os.Remove(path), os.WriteFile(path, b, 0o644)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestAFlippedBitAnywhereIsNoticedAndRepaired cuts off the files of a finished run, and flips a bit in each, those of
// one kind at a time. Each is named by verify, and repair, or what repair says to type, makes the same bytes again.
func TestAFlippedBitAnywhereIsNoticedAndRepaired(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	w.must("pipeline", tiny("--run", "r")...)
	before := w.files()
	kinds := map[string][]string{}
	for path := range before {
		kind, _, _ := strings.Cut(path, string(filepath.Separator))
		if kind == "runs" && !strings.Contains(path, "events") {
			kind = "files of the run"
		}
		kinds[kind] = append(kinds[kind], path)
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Run(kind, func(t *testing.T) {
			w.t = t
			paths := kinds[kind]
			slices.Sort(paths)
			if kind == "jobs" || kind == "objects" { // some of them, for each costs a job
				random.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
				paths = paths[:8]
			}
			if kind == "nats" { // what one file says of another is known as long as it is whole
				for _, path := range paths {
					w.cutOff([]string{path})
				}
			} else {
				w.cutOff(paths)
			}
			w.flip(paths, random)
			w.named(paths)
			o := w.run("pipeline", "repair")
			if o.status != 0 && !strings.Contains(o.stdout, "give the run's command again: pipeline run ") {
				t.Fatalf("repair does not say what to type:\n%s%s", tail(o.stdout), o.stderr)
			}
			if o.status != 0 || kind == "files of the run" { // whose commands are nowhere else
				w.must("pipeline", tiny("--run", "r")...)
			}
			w.found(0, "repair")
			w.found(0, "verify")
			after := w.files()
			for path, want := range before {
				if kind != "nats" && !strings.HasPrefix(path, "nats") && after[path] != want &&
					!strings.Contains(path, "run.finished") {
					t.Errorf("%s is not what it was: %.100q, not %.100q", path, after[path], want)
				}
			}
		})
	}
}

// cutOff makes sure that verify names files that have lost their end, or all of their bytes.
func (w *world) cutOff(paths []string) {
	w.t.Helper()
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		target, _ := os.Readlink(filepath.Join(w.data, path))
		return target != ""
	})
	for _, share := range []int{0, 2} {
		whole := map[string][]byte{}
		for _, path := range paths {
			path = filepath.Join(w.data, path)
			b, err := os.ReadFile(path)
			if err == nil {
				whole[path] = b
				err = errors.Join(os.Remove(path), os.WriteFile(path, b[:share*len(b)/3], 0o644))
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}
		w.named(paths)
		for path, b := range whole {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// named makes sure that verify names all of the files, and no others.
func (w *world) named(paths []string) {
	w.t.Helper()
	var want, got []string
	for _, path := range paths {
		if before, ok := strings.CutSuffix(path, "meta.sum"); ok { // the file and its hash are one thing
			path = before + "meta.inf"
		}
		want = append(want, filepath.Join(w.data, path))
	}
	all := w.found(1, "verify")
	for _, f := range all[:len(all)-1] {
		if f.Type != "damaged" || f.Kind == "" || f.Text == "" {
			w.t.Errorf("%+v", f)
		}
		got = append(got, f.Path)
	}
	slices.Sort(want)
	slices.Sort(got)
	if want = slices.Compact(want); !slices.Equal(got, want) {
		w.t.Fatalf("verify names\n%s\nand these are damaged:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if last := all[len(all)-1]; last.Type != "verified" || last.Damaged != len(want) {
		w.t.Errorf("%+v", last)
	}
}

// The files that an unfinished job goes on from are verified, too, and the run ends as if nothing had been damaged.
func TestDamagedFilesOfAnUnfinishedJob(t *testing.T) {
	w, _, _ := midTraining(t, newWorld, (*launched).interrupt)
	var paths []string
	for path, content := range w.files() {
		if name := filepath.Base(path); strings.HasPrefix(path, "jobs") && name != "record.msgpack" &&
			!strings.HasPrefix(name, "times-") && content != "" { // times are for people
			paths = append(paths, path)
		}
	}
	if len(paths) < 4 { // a pause, the log with its lengths, a checkpoint that was announced
		t.Fatalf("the job keeps %v", paths)
	}
	w.flip(paths, rand.New(rand.NewPCG(1, 2)))
	w.named(paths)
	for _, f := range w.found(0, "repair") {
		if f.Type != "repaired" || f.Kind != "unfinished" {
			t.Errorf("%+v", f)
		}
	}
	w.found(0, "verify")
	w.must("pipeline", tiny()...)
	w.sameAsReference()
}

// What is missing may have been freed, so it is no damage. It is made again on request.
func TestMissingArtifactsAreMadeAgain(t *testing.T) {
	w := newWorld(t)
	w.must("pipeline", tiny()...)
	w.must("pipeline", "gc", "--keep-checkpoints", "1", "--yes")
	out := w.must("pipeline", "verify")
	if !strings.Contains(out, "artifacts not there") {
		t.Errorf("nothing is missing:\n%s", out)
	}
	w.must("pipeline", "repair", "--missing")
	w.sameAsReference()
	if out := w.must("pipeline", "verify"); strings.Contains(out, "not there") {
		t.Errorf("after the repair:\n%s", out)
	}
	w.refuses(2, []string{"verify takes no arguments", "--data"}, "pipeline", "verify", w.data)
	w.refuses(1, []string{"no data directory"}, "pipeline", "repair", "--data", t.TempDir())
}
