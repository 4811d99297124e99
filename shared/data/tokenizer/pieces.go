package tokenizer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
)

// Patterns are the names of the patterns that Pieces can split texts by: those of the vocabularies of that name, and of
// Qwen's and Tekken's.
func Patterns() []string { return slices.Sorted(maps.Keys(patterns)) }

// CheckPattern reports a pattern that is not among Patterns.
func CheckPattern(name string) error {
	if patterns[name] == "" {
		return fmt.Errorf("pattern %q is unknown: choose one of %s", name, strings.Join(Patterns(), ", "))
	}
	return nil
}

// Pieces counts how often each piece occurs in texts, which a pattern splits. Train takes nothing else of the texts.
type Pieces struct {
	pattern string
	split   splitter
	classes *classes

	all   vocabulary // in the order in which they were met first
	times []int64    // how often each occurs
	slots []uint32   // of a hash table with open addressing, at most half full: index of a piece plus one; 0: free
}

// NewPieces returns an empty Pieces. The pattern is one of Patterns.
func NewPieces(pattern string) *Pieces {
	c := newClasses(unicode16)
	c.longS = true
	return &Pieces{pattern: pattern, split: splitters[pattern], classes: c}
}

// Empty returns a Pieces of the same pattern that has counted nothing.
func (p *Pieces) Empty() *Pieces {
	return &Pieces{pattern: p.pattern, split: p.split, classes: p.classes}
}

// Len is the number of different pieces.
func (p *Pieces) Len() int { return len(p.times) }

// Add counts the pieces of a text.
func (p *Pieces) Add(text []byte) {
	for i := 0; i < len(text); {
		end := p.split(p.classes, text, i)
		p.add(text[i:end], 1)
		i = end
	}
}

// Merge adds what q has counted.
func (p *Pieces) Merge(q *Pieces) {
	for i, n := range q.times {
		p.add(q.all.token(uint32(i)), n)
	}
}

func (p *Pieces) add(piece []byte, n int64) {
	if 2*len(p.times) >= len(p.slots) {
		p.grow()
	}
	slot := p.find(piece)
	if *slot == 0 {
		p.all.add(piece...)
		p.times = append(p.times, 0)
		*slot = uint32(len(p.times))
	}
	p.times[*slot-1] += n
}

// find returns the slot of a piece, or the free slot in which it has its place.
func (p *Pieces) find(piece []byte) *uint32 {
	mask := uint64(len(p.slots) - 1)
	for i := xxh3.Hash(piece) & mask; ; i = (i + 1) & mask {
		if s := &p.slots[i]; *s == 0 || string(p.all.token(*s-1)) == string(piece) {
			return s
		}
	}
}

// grow makes room for twice as many pieces.
func (p *Pieces) grow() {
	p.slots = make([]uint32, max(1<<10, 2*len(p.slots)))
	for i := range p.times {
		*p.find(p.all.token(uint32(i))) = uint32(i + 1)
	}
}

// Training takes at most about so many bytes of memory for each piece, and for each byte of a piece. Half of them are
// for the garbage collector (TestTrainingMemory).
const (
	memoryOfPiece = 96
	memoryOfByte  = 60
)

// Memory is about the most memory, in bytes, that counting and training need for the pieces.
func (p *Pieces) Memory() int64 {
	return memoryOfPiece*int64(p.Len()) + memoryOfByte*int64(len(p.all.bytes))
}

// Prune leaves the rarest pieces out where all need more than so many bytes of memory, so that the others need at most
// half of them. It returns how often those pieces occurred that are left out. Of pieces that occur equally often all or
// none are left out, so that the result follows from the counts alone.
func (p *Pieces) Prune(memory int64) (dropped int64) {
	if p.Memory() <= memory {
		return 0
	}
	order := p.all.all()
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(p.times[b], p.times[a]) })
	var need, rare int64 // of the pieces so far; pieces that occur so often, or less often, are left out
	for _, i := range order {
		if need += memoryOfPiece + memoryOfByte*int64(len(p.all.token(i))); need > memory/2 {
			rare = p.times[i]
			break
		}
	}
	kept := p.Empty()
	for i, n := range p.times {
		if n > rare {
			kept.add(p.all.token(uint32(i)), n)
		} else {
			dropped += n
		}
	}
	*p = *kept
	return dropped
}
