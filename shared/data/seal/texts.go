package seal

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/zeebo/xxh3"

	"bitnet1/shared/data/dataset"
)

// TextsFormat is the version of a list of texts, and the first bytes of such a file. Digests of 16 bytes follow, each
// once, in ascending order: the xxh3-128 hash, in network byte order, of a text in lower case whose runs of white space
// are one space. A dataset without duplicates has a list, so that a later dataset can leave out its texts.
const TextsFormat = "bitnet1.texts.v1"

// TextsName is the name of a dataset's list.
const TextsName = "texts.digests"

const textBytes = 16

// KnownTexts is the list of texts of an earlier dataset. Reports and manifests call it by Name.
type KnownTexts struct{ Name, Path string }

// writeTexts sorts digests and writes a list of them.
func writeTexts(w io.Writer, texts []xxh3.Uint128) error {
	slices.SortFunc(texts, compareTexts)
	out := bufio.NewWriterSize(w, 1<<16)
	_, err := out.WriteString(TextsFormat)
	for i, text := range texts {
		if i > 0 && text == texts[i-1] {
			continue
		}
		b := text.Bytes()
		if _, err = out.Write(b[:]); err != nil {
			break
		}
	}
	if err == nil {
		err = out.Flush()
	}
	return err
}

func compareTexts(a, b xxh3.Uint128) int {
	return cmp.Or(cmp.Compare(a.Hi, b.Hi), cmp.Compare(a.Lo, b.Lo))
}

// textList reads a list in order.
type textList struct {
	name string
	file *os.File
	in   *bufio.Reader
	next xxh3.Uint128 // the text that was read last
	left int64        // texts that follow it
}

func openTexts(k KnownTexts) (*textList, error) {
	f, err := os.Open(k.Path)
	if err != nil {
		return nil, fmt.Errorf("list of texts: %w", err)
	}
	t := &textList{name: k.Name, file: f, in: bufio.NewReaderSize(f, 1<<16)}
	start := make([]byte, len(TextsFormat))
	_, err = io.ReadFull(t.in, start)
	info, failed := f.Stat()
	if err := errors.Join(err, failed); err != nil || string(start) != TextsFormat || info.Size()%textBytes != 0 {
		f.Close()
		return nil, fmt.Errorf("list of texts %s: %w: it does not begin with %s and go on with digests of %d bytes; "+
			"is it the file %s of a dataset?",
			k.Path, dataset.ErrCorrupt, TextsFormat, textBytes, TextsName)
	}
	t.left = info.Size()/textBytes - 1
	return t, t.advance()
}

func (t *textList) close() { t.file.Close() }

// has tells whether the list contains a text. Texts must be asked for in ascending order.
func (t *textList) has(text xxh3.Uint128) (bool, error) {
	for t.left >= 0 {
		if c := compareTexts(t.next, text); c >= 0 {
			return c == 0, nil
		}
		if err := t.advance(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// advance reads the next text of the list. Behind the last text, left is negative.
func (t *textList) advance() error {
	t.left--
	if t.left < 0 {
		return nil
	}
	var b [textBytes]byte
	if _, err := io.ReadFull(t.in, b[:]); err != nil {
		return fmt.Errorf("list of texts %s: %w", t.name, err)
	}
	next := xxh3.Uint128{Hi: binary.BigEndian.Uint64(b[:]), Lo: binary.BigEndian.Uint64(b[8:])}
	if compareTexts(next, t.next) < 0 {
		return fmt.Errorf("list of texts %s: %w: it is not in order", t.name, dataset.ErrCorrupt)
	}
	t.next = next
	return nil
}
