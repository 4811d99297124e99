package trainlog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A file that grows is read piece by piece, in whole lines. A file that has become another one is read anew.
func TestFollower(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	var f Follower
	restarts := 0
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	next := func(restarted int, want ...string) {
		t.Helper()
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var got []string
		before := restarts
		err = f.Next(file, func() { restarts++ }, func(line []byte) { got = append(got, string(line)) })
		if err != nil || !slices.Equal(got, want) || restarts-before != restarted {
			t.Fatalf("%.200q with %d restarts, %v; want %.200q", got, restarts-before, err, want)
		}
	}
	write("")
	next(0)
	write("one\ntw")
	next(0, "one")
	next(0)
	write("one\ntwo\nthree\n")
	next(0, "two", "three")
	write("one\n") // cut off
	next(1, "one")
	write("one\nother\n") // and on
	next(0, "other")
	write("new\nother\nand longer\n")
	next(1, "new", "other", "and longer")
	long := strings.Repeat("x", 3*longestLine)
	write("new\nother\nand longer\n" + long + "\nafter\n")
	next(0, "after")
	write("new\nother\nand longer\n" + long + "\nafter\n" + long + long + long)
	var many []string
	for range 20000 {
		many = append(many, "a line that is not short")
	}
	next(0)
	write(strings.Join(many, "\n") + "\n")
	next(1, many...)
}

func TestValues(t *testing.T) {
	for line, want := range map[string]string{
		`{"event":"step","step":10,"train_bpc":5.5,"lr":3e-4}`:       `step {"lr":0.0003,"step":10,"train_bpc":5.5}`,
		`{"step":1,"val_bpc":null,"best":true,"model":"00,\u00ff}"}`: "no", // an escape
		`{"step":1,"val_bpc":null,"best":true,"model":"00,ff}"}`:     ` {"step":1}`,
		`  {} `:          " {}",
		"":               "no",
		"{":              "no",
		"[]":             "no",
		`{"a":1,}`:       "no",
		`{"a"}`:          "no",
		`{"a":}`:         "no",
		`{"a":1 "b":2}`:  "no",
		`{"a":{"b":1}}`:  "no",
		`{"a":"b":"c"}`:  "no",
		`{"a":"b`:        "no",
		`{"step":1e999}`: "no",
		`{"a":"}`:        "no",
	} {
		found := map[string]float64{}
		event, ok := Values([]byte(line), func(key []byte, v float64) { found[string(key)] = v })
		b, _ := json.Marshal(found)
		if got := string(event) + " " + string(b); ok && got != want || !ok && want != "no" {
			t.Errorf("%s: %s (%v), want %s", line, got, ok, want)
		}
	}
}

// The quick reader agrees with package encoding/json on lines of both files.
func FuzzValues(f *testing.F) {
	f.Add(`{"event":"step","step":10,"tokens":640,"train_bpc":5.5,"lr":0.003,"gamma":0.9,"grad_norm":1.25}`)
	f.Add(`{"step":10,"seconds":0.1644025616,"tokens_per_second":24914.453644376794}`)
	f.Fuzz(func(t *testing.T, line string) {
		found := map[string]float64{}
		_, ok := Values([]byte(line), func(key []byte, v float64) { found[string(key)] = v })
		var want map[string]any
		if !ok || json.Unmarshal([]byte(line), &want) != nil {
			return
		}
		for key, v := range want {
			if number, is := v.(float64); is && found[key] != number {
				t.Errorf("%q: %s is %v, want %v", line, key, found[key], number)
			}
		}
	})
}

func BenchmarkValues(b *testing.B) {
	line := []byte(`{"event":"step","step":10,"tokens":40960,"train_bpc":6.3226786815500375,"lr":0.0006,` +
		`"gamma":0.8707730430490966,"grad_norm":5.514441690137875}`)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		Values(line, func([]byte, float64) {})
	}
}
