package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// tree is the project's source and what is known of it.
type tree struct {
	root    string
	scratch string
	sources map[string][]byte // of files that faults are of
	known   map[string]bool   // described faults that change nothing
}

// faults lists those written by hand, then a sample of those that operators make.
func (t *tree) faults(hand bool, sample int, seed uint64) ([]fault, error) {
	targets, err := t.targets()
	if err != nil {
		return nil, err
	}
	var faults []fault
	if hand {
		if faults, err = t.byHand(targets); err != nil {
			return nil, err
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for _, target := range targets {
		var all []fault
		for _, file := range target.files {
			made, err := t.generated(file)
			if err != nil {
				return nil, err
			}
			all = append(all, made...)
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if sample >= 0 {
			all = all[:min(sample, len(all))]
		}
		for i := range all {
			all[i].tests = target.tests
		}
		faults = append(faults, all...)
	}
	return faults, nil
}

// target is a line of targets.txt: source files, and the tests that are about them.
type target struct {
	files []string
	tests []string
}

func (t *tree) targets() ([]target, error) {
	var list []target
	for line, err := range t.lines("targets.txt") {
		if err != nil {
			return nil, err
		}
		patterns, tests, _ := strings.Cut(line, ":")
		g := target{tests: strings.Fields(tests)}
		for _, pattern := range strings.Fields(patterns) {
			found, err := filepath.Glob(filepath.Join(t.root, pattern))
			if err != nil {
				return nil, err
			}
			for _, file := range found {
				if name, err := filepath.Rel(t.root, file); err == nil && !strings.HasSuffix(name, "_test.go") {
					g.files = append(g.files, filepath.ToSlash(name))
				}
			}
		}
		if len(g.files) == 0 || len(g.tests) == 0 {
			return nil, fmt.Errorf("targets.txt: %q names no source file or no tests", line)
		}
		list = append(list, g)
	}
	return list, nil
}

// byHand reads faults.txt. A block is the line "# FILE: why", a line with "- " before what is there, which must be
// there exactly once, and one with "+ " before what takes its place.
func (t *tree) byHand(targets []target) (faults []fault, err error) {
	var f fault
	for line, err := range t.lines("faults.txt") {
		if err != nil {
			return nil, err
		}
		sign, text, _ := strings.Cut(line, " ")
		switch sign {
		case "#":
			file, _, _ := strings.Cut(text, ":")
			f = fault{file: file}
			for _, target := range targets {
				if slices.Contains(target.files, file) {
					f.tests = target.tests
				}
			}
			if f.tests == nil {
				return nil, fmt.Errorf("faults.txt: targets.txt has no tests for %s", file)
			}
		case "-":
			source, err := t.source(f.file)
			if err != nil {
				return nil, err
			}
			if n := bytes.Count(source, []byte(text)); n != 1 {
				return nil, fmt.Errorf("faults.txt: %q is %d times in %s: bring the fault up to date", text, n, f.file)
			}
			f.from = bytes.Index(source, []byte(text))
			f.to = f.from + len(text)
		case "+":
			f.text = text
			faults = append(faults, f)
		default:
			return nil, fmt.Errorf("faults.txt: %q begins with none of #, - and +", line)
		}
	}
	return faults, nil
}

// equivalents reads equivalent.txt: what describe says of a fault on one line, the reason on the next.
func (t *tree) equivalents() (map[string]bool, error) {
	known, last := map[string]bool{}, ""
	for line, err := range t.lines("equivalent.txt") {
		if err != nil {
			return nil, err
		}
		if reason, ok := strings.CutPrefix(line, "= "); ok && reason != "" && last != "" {
			known[last], last = true, ""
			continue
		}
		if last != "" {
			return nil, fmt.Errorf("equivalent.txt: no reason follows %q", last)
		}
		last = line
	}
	if last != "" {
		return nil, fmt.Errorf("equivalent.txt: no reason follows %q", last)
	}
	return known, nil
}

// lines are those of a file of this folder that are neither empty nor begin with //.
func (t *tree) lines(name string) func(yield func(string, error) bool) {
	return func(yield func(string, error) bool) {
		b, err := os.ReadFile(filepath.Join(t.root, "tools", "mutate", name))
		if err != nil {
			yield("", err)
			return
		}
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasPrefix(line, "//") && !yield(line, nil) {
				return
			}
		}
	}
}

func (t *tree) source(file string) ([]byte, error) {
	if b, ok := t.sources[file]; ok {
		return b, nil
	}
	b, err := os.ReadFile(filepath.Join(t.root, filepath.FromSlash(path.Clean(file))))
	t.sources[file] = b
	return b, err
}

// describe names a fault by what its line is and becomes: lines above may come and go.
func (t *tree) describe(f fault) string {
	source := t.sources[f.file]
	from := bytes.LastIndexByte(source[:f.from], '\n') + 1
	to := len(source)
	if end := bytes.IndexByte(source[f.to:], '\n'); end >= 0 {
		to = f.to + end
	}
	was := strings.Join(strings.Fields(string(source[from:to])), " ")
	is := strings.Join(strings.Fields(string(source[from:f.from])+f.text+string(source[f.to:to])), " ")
	if is == "" {
		is = "nothing"
	}
	return fmt.Sprintf("%s: %s => %s", f.file, was, is)
}
