// Command mutate asks whether the tests would notice a fault: it puts one after the other into a copy of a source file,
// runs the tests that are about it, and reports which faults they killed and which survived.
//
//	go run -C tools ./mutate -sample 10
//
// There are two kinds. Those of faults.txt were written by hand. The others are made by operators (operators.go) from
// the source files that targets.txt lists, and of these a sample is drawn. The tree is never changed: the compiler is
// given the copy by go's -overlay. A survivor in equivalent.txt, with the reason why it changes nothing, does not
// count.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// fault is one change of a source file.
type fault struct {
	file     string // from the root of the tree
	from, to int    // bytes that are replaced
	text     string
	tests    []string // packages, the quickest first
}

type outcome string

const (
	killed     outcome = "killed"
	survived   outcome = "SURVIVED"
	equivalent outcome = "equivalent"
	broken     outcome = "does not compile"
)

func main() {
	root := flag.String("root", "..", "root of the tree")
	sample := flag.Int("sample", 10, "generated faults for each line of targets.txt; -1: all")
	hand := flag.Bool("hand", true, "try those of faults.txt")
	seed := flag.Uint64("seed", uint64(time.Now().Unix()/86400), "of the sample: the day's unless given")
	only := flag.String("only", "", "source files that contain this text alone")
	least := flag.Float64("least", 95, "percentage of faults that must be killed")
	list := flag.Bool("list", false, "print the faults and run nothing")
	parallel := flag.Int("parallel", 2, "faults tried at the same time")
	flag.Parse()
	if err := run(*root, *only, *sample, *seed, *least, *hand, *list, *parallel); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(root, only string, sample int, seed uint64, least float64, hand, list bool, parallel int) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	t := tree{root: root, sources: map[string][]byte{}}
	faults, err := t.faults(hand, sample, seed)
	if err != nil {
		return err
	}
	faults = slices.DeleteFunc(faults, func(f fault) bool { return !strings.Contains(f.file, only) })
	if list {
		for _, f := range faults {
			fmt.Println(t.describe(f))
		}
		return nil
	}
	if t.known, err = t.equivalents(); err != nil {
		return err
	}
	if t.scratch, err = os.MkdirTemp("", "mutate"); err != nil {
		return err
	}
	defer os.RemoveAll(t.scratch)
	if err := t.healthy(faults); err != nil {
		return err
	}
	fmt.Printf("%d faults, seed %d\n", len(faults), seed)
	return t.try(faults, least, parallel)
}

// try runs the tests against each fault, as many faults at the same time as parallel says, and reports.
func (t *tree) try(faults []fault, least float64, parallel int) error {
	results := make([]outcome, len(faults))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, f := range faults {
		group.Go(func() (err error) {
			if results[i], err = t.outcome(f); err == nil {
				fmt.Printf("%-10s %s\n", results[i], t.describe(f))
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	counts := map[string]map[outcome]int{}
	var survivors []string
	for i, f := range faults {
		result := results[i]
		part := filepath.Dir(f.file)
		if counts[part] == nil {
			counts[part] = map[outcome]int{}
		}
		counts[part][result]++
		if result == survived {
			survivors = append(survivors, t.describe(f))
		}
	}
	total := map[outcome]int{}
	parts := make([]string, 0, len(counts))
	for part, c := range counts {
		parts = append(parts, part)
		for o, n := range c {
			total[o] += n
		}
	}
	slices.Sort(parts)
	counts["all"] = total
	fmt.Printf("\n%-24s %7s %9s %11s %7s\n", "", "killed", "survived", "equivalent", "share")
	for _, part := range append(parts, "all") {
		c := counts[part]
		fmt.Printf("%-24s %7d %9d %11d %6.1f%%\n", part, c[killed], c[survived], c[equivalent], percentage(c))
	}
	for _, s := range survivors {
		fmt.Println("survived:", s)
	}
	if p := percentage(total); p < least {
		return fmt.Errorf("%.1f %% of the faults were killed, fewer than %g %%: write a test for each survivor, or say in "+
			"tools/mutate/equivalent.txt why it changes nothing", p, least)
	}
	return nil
}

// percentage is the share of the faults that count which were killed.
func percentage(c map[outcome]int) float64 {
	if c[killed]+c[survived] == 0 {
		return 100
	}
	return 100 * float64(c[killed]) / float64(c[killed]+c[survived])
}

// healthy makes sure that the tests pass where nothing is changed.
func (t *tree) healthy(faults []fault) error {
	var packages []string
	for _, f := range faults {
		packages = append(packages, f.tests...)
	}
	slices.Sort(packages)
	for _, p := range slices.Compact(packages) {
		if said, err := t.test(p, ""); err != nil {
			return fmt.Errorf("the tests of %s fail without a fault: %w\n%s", p, err, said)
		}
	}
	return nil
}

// outcome puts a fault in and runs its tests.
func (t *tree) outcome(f fault) (outcome, error) {
	source := t.sources[f.file]
	scratch, err := os.MkdirTemp(t.scratch, "")
	if err != nil {
		return "", err
	}
	mutant := filepath.Join(scratch, "mutant.go")
	changed := slices.Concat(source[:f.from], []byte(f.text), source[f.to:])
	if err := os.WriteFile(mutant, changed, 0o644); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(t.root, f.file): mutant}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(scratch, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o644); err != nil {
		return "", err
	}
	for _, p := range f.tests {
		said, err := t.test(p, path)
		switch {
		case err == nil:
		case strings.Contains(said, "[build failed]") || strings.Contains(said, "[setup failed]"):
			return broken, nil
		default:
			return killed, nil
		}
	}
	if t.known[t.describe(f)] {
		return equivalent, nil
	}
	return survived, nil
}

// tooLong is when tests that wait for ever count as failed; a fault can make a loop endless. Compiling is not counted,
// and what the tests have started and left may take as long again.
const tooLong = 2 * time.Minute

// test runs the tests of a package, and what programs they build, with the overlay.
func (t *tree) test(pattern, overlay string) (said string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*tooLong)
	defer cancel()
	args := []string{"test", "-vet=off", "-failfast", "-timeout", tooLong.String(), pattern}
	if overlay != "" {
		args = append(args, "-count=1") // go's cache does not know the programs that tests build, in which the fault may be
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = t.root
	cmd.Env = os.Environ()
	if overlay != "" {
		cmd.Env = append(cmd.Env, "GOFLAGS=-overlay="+overlay)
	}
	cmd.WaitDelay = time.Second
	// with the programs that tests start, and leave behind where they fail
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	b, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		_ = kill() // what is left
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", err
	}
	return string(b), err
}
