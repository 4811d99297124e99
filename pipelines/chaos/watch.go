package main

import (
	"os"
	"path/filepath"
	"strings"
)

// watch counts the files that a run has made, by class (see moment).
type watch struct {
	data   string
	seen   map[string]bool
	counts map[string]int
}

func newWatch(data string) *watch {
	return &watch{data: data, seen: map[string]bool{}, counts: map[string]int{}}
}

// look counts what is new.
func (w *watch) look() {
	w.count("runs/*/events/*/*.msgpack", func(path string) string { return filepath.Base(filepath.Dir(path)) })
	w.count("objects/*/*", func(string) string { return "artifact" })
	w.count("jobs/*/*/record.msgpack", func(string) string { return "record" })
}

func (w *watch) count(pattern string, class func(path string) string) {
	found, _ := filepath.Glob(filepath.Join(w.data, pattern)) // the pattern is sound
	for _, path := range found {
		if w.seen[path] || strings.HasPrefix(filepath.Base(path), ".") {
			continue
		}
		if _, err := os.Lstat(path); err == nil {
			w.seen[path] = true
			w.counts[class(path)]++
		}
	}
}
