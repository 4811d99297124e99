package dataset

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// TextsFormat is the version of a list of texts, and what such a file begins with. Digests of 16 bytes follow, each once,
// in ascending order: xxh3-128, in network byte order, of a document's text in lower case with runs of white space as one
// space. A dataset made without duplicates has one, so that a later dataset can leave out what it holds.
const TextsFormat = "bitnet1.texts.v1"

// TextsName is the name of a dataset's list.
const TextsName = "texts.digests"

const textBytes = 16

// KnownTexts is the list of an earlier dataset. Name stands for it in reports and manifests.
type KnownTexts struct{ Name, Path string }

// writeTexts writes a list of digests, which it sorts.
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
	data []byte // the mapping
	rest []byte
	last xxh3.Uint128
}

func openTexts(k KnownTexts) (*textList, error) {
	data, err := mapFile(k.Path)
	if err != nil {
		return nil, fmt.Errorf("list of texts %s: %w", k.Path, err)
	}
	if len(data)%textBytes != 0 || string(data[:min(len(data), len(TextsFormat))]) != TextsFormat {
		_ = unix.Munmap(data)
		return nil, fmt.Errorf("list of texts %s: %w: it does not begin with %s and go on with digests of %d bytes; is it the file %s of a dataset?", k.Path, errCorrupt, TextsFormat, textBytes, TextsName)
	}
	return &textList{name: k.Name, data: data, rest: data[len(TextsFormat):]}, nil
}

func (t *textList) close() { _ = unix.Munmap(t.data) }

// has tells whether the list holds a text. Each call asks for one that is not less than that of the call before.
func (t *textList) has(text xxh3.Uint128) (bool, error) {
	for len(t.rest) > 0 {
		next := xxh3.Uint128{Hi: binary.BigEndian.Uint64(t.rest), Lo: binary.BigEndian.Uint64(t.rest[8:])}
		if compareTexts(next, t.last) < 0 {
			return false, fmt.Errorf("list of texts %s: %w: it is not in order", t.name, errCorrupt)
		}
		if c := compareTexts(next, text); c >= 0 {
			return c == 0, nil
		}
		t.last, t.rest = next, t.rest[textBytes:]
	}
	return false, nil
}
