package corpus

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"bitnet1/kernels/number/philox"
	"bitnet1/shared/data/tokenizer"
)

// CopyTask describes documents of random symbols that are written twice: what comes in the second half can be known
// from the first, by looking for what came after the same symbol.
type CopyTask struct {
	Symbols   int // to draw from; their tokenizer is symbols-N
	Length    int // symbols before they come again
	Documents int
	Seed      uint64
}

// CopyBatch is how many documents a training step takes in ParseCopyTask's count.
const CopyBatch = 32

// ParseCopyTask reads a source such as copy:symbols=64,length=24,steps=1000. The steps say how long training on batches
// of 32 meets no document twice.
func ParseCopyTask(source string, seed uint64) (CopyTask, error) {
	steps := 1000
	c := CopyTask{Symbols: 64, Length: 24, Seed: seed}
	_, list, _ := strings.Cut(source, ":")
	for _, item := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		key, text, _ := strings.Cut(item, "=")
		target, ok := map[string]*int{"symbols": &c.Symbols, "length": &c.Length, "steps": &steps}[key]
		if !ok {
			return c, fmt.Errorf("source %s: unknown key %q: the keys are symbols, length and steps", source, key)
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1<<20 {
			return c, fmt.Errorf("source %s: %s is %q, want a number from 1 to %d", source, key, text, 1<<20)
		}
		*target = n
	}
	c.Documents = steps * CopyBatch
	if _, err := tokenizer.New(c.Tokenizer()); err != nil {
		return c, fmt.Errorf("source %s: %w", source, err)
	}
	return c, nil
}

// Tokenizer is the one whose tokens are the symbols.
func (c CopyTask) Tokenizer() string { return fmt.Sprintf("symbols-%d", c.Symbols) }

// Write writes the documents into dir as JSON lines and returns the file's path. The bytes are a function of c, so a
// file that is there is left alone.
func (c CopyTask) Write(dir string) (string, error) {
	path := filepath.Join(dir, fmt.Sprintf("copy-%dx%d-%d-%d.jsonl", c.Symbols, c.Length, c.Documents, c.Seed))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	symbols, err := tokenizer.New(c.Tokenizer())
	if err != nil {
		return "", fmt.Errorf("copy task: %w", err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("copy task: %w", err)
	}
	f, err := os.CreateTemp(dir, "copy-*.new")
	if err != nil {
		return "", fmt.Errorf("copy task: %w", err)
	}
	defer os.Remove(f.Name()) // fails once it has its name
	err = errors.Join(c.write(f, symbols), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("copy task: %w", err)
	}
	return path, nil
}

func (c CopyTask) write(f *os.File, symbols tokenizer.Tokenizer) error {
	out := bufio.NewWriter(f)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	ids := make([]uint32, c.Length)
	for d := range c.Documents {
		for i := range ids {
			word := philox.Block(philox.Key(c.Seed), [4]uint32{uint32(i / 4), uint32(d)})[i%4]
			ids[i] = uint32(uint64(word) * uint64(c.Symbols) >> 32)
		}
		once := string(symbols.Decode(nil, ids))
		if err := lines.Encode(map[string]string{"id": fmt.Sprintf("copy/%d", d), "text": once + once}); err != nil {
			return err
		}
	}
	return out.Flush()
}
