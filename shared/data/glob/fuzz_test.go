package glob

import (
	"regexp"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
)

// FuzzMatch compares patterns of *, ? and ** with regular expressions that mean the same.
func FuzzMatch(f *testing.F) {
	f.Add("**/a*/?.jsonl", "x/y/ab/c.jsonl")
	f.Add("**", "a/b")
	f.Add("a/**/b/**", "a/b/c/b/d")
	f.Add(strings.Repeat("**/a/", 30)+"b", strings.Repeat("a/", 60)+"c") // which takes for ever where each ** tries all
	f.Fuzz(func(t *testing.T, pattern, name string) {
		var got bool
		var err error
		alloctest.AtMost(t, 1<<16+256*int64(len(pattern)+len(name)), func() { got, err = Match(pattern, name) })
		if err != nil || strings.ContainsAny(pattern, `[\`) || strings.ContainsRune(name, '\uFFFD') ||
			len(pattern)+len(name) > 1000 {
			return
		}
		if want := expression(pattern).MatchString(name); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	})
}

func expression(pattern string) *regexp.Regexp {
	var text strings.Builder
	names := split(pattern)
	for i, name := range names {
		if name == folders {
			text.WriteString("(?:[^/]*/)*")
			continue
		}
		for _, r := range name {
			switch r {
			case '*':
				text.WriteString("[^/]*")
			case '?':
				text.WriteString("[^/]")
			default:
				text.WriteString(regexp.QuoteMeta(string(r)))
			}
		}
		if i < len(names)-1 {
			text.WriteString("/")
		}
	}
	return regexp.MustCompile(`(?s)\A` + text.String() + `\z`)
}
