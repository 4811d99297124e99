package param

import (
	"fmt"
	"slices"
)

// UnknownKey is the error for a key that is not among valid. It names the nearest valid key, or all of them when none
// is near.
func UnknownKey(key string, valid []string) error {
	if len(key) > maxWord {
		return fmt.Errorf("unknown key %q… of %d bytes: the keys here are %v", key[:maxWord], len(key), valid)
	}
	if near, ok := Nearest(key, valid); ok {
		return fmt.Errorf("unknown key %q: did you mean %q?", key, near)
	}
	if len(valid) == 0 {
		return fmt.Errorf("unknown key %q: none is taken here", key)
	}
	return fmt.Errorf("unknown key %q: the keys here are %v", key, valid)
}

// maxWord bounds the words that are compared: longer ones are no typing error.
const maxWord = 100

// Nearest returns the candidate with the smallest edit distance to word, when that is at most a third of the word's
// length plus one.
func Nearest(word string, candidates []string) (string, bool) {
	if len(word) > maxWord {
		return "", false
	}
	best, distance := "", len(word)/3+2
	for _, c := range candidates {
		if d := editDistance(word, c); d < distance {
			best, distance = c, d
		}
	}
	return best, best != ""
}

// editDistance counts the insertions, deletions and substitutions of bytes that turn a into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}
