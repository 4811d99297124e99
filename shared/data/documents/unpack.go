package documents

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"bitnet1/shared/filetype"
)

// A compressed file may unpack to unpackedBytes, and unpackedPerByte more for each of its own bytes. No text is so
// repetitive, but a file made on purpose can unpack to thirty thousand times its size.
const (
	unpackedBytes   = 1 << 28
	unpackedPerByte = 1 << 13
)

// maxWindow is the largest window of zstd, in bytes. The memory of the process that decodes has room for it.
const maxWindow = 128 << 20

// unpack returns the text of a file, decompressed if need be, and the type of the text. A text of more than most bytes
// is an error.
func unpack(f io.Reader, kind filetype.Type, most int64) (*bufio.Reader, filetype.Type, error) {
	if kind != filetype.Gzip && kind != filetype.Zstd {
		return bufio.NewReaderSize(f, 1<<16), kind, nil
	}
	name := "gzip"
	var in io.Reader
	var err error
	if kind == filetype.Gzip {
		in, err = newGzipMembers(f)
	} else {
		name = "zstd"
		in, err = newZstdFrames(f)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	text := bufio.NewReaderSize(&bounded{in: in, left: most}, 1<<16)
	start, _ := text.Peek(filetype.Sample) // the reader returns an error again when the text is read
	inner := filetype.Of(start)
	err = refuse(inner)
	if err == nil && (inner == filetype.Parquet || inner == filetype.Gzip || inner == filetype.Zstd) {
		err = fmt.Errorf("the file is %v", inner)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("inside %s: %w: decompress the file first", name, err)
	}
	return text, inner, nil
}

// gzipMembers reads the members of a gzip file one after the other. Zeros behind a member are padding, which tapes and
// some programs leave.
type gzipMembers struct {
	in     *bufio.Reader
	member *gzip.Reader
}

func newGzipMembers(f io.Reader) (*gzipMembers, error) {
	in := bufio.NewReaderSize(f, 1<<16)
	member, err := gzip.NewReader(in)
	if err != nil {
		return nil, cutShort(err)
	}
	member.Multistream(false)
	return &gzipMembers{in, member}, nil
}

func (g *gzipMembers) Read(p []byte) (int, error) {
	for {
		n, err := g.member.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		if err == io.EOF {
			err = g.next()
		}
		if err != nil {
			return 0, cutShort(err)
		}
	}
}

// next begins the next member, or returns io.EOF.
func (g *gzipMembers) next() error {
	for {
		c, err := g.in.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			break
		}
	}
	if err := g.in.UnreadByte(); err != nil {
		return err
	}
	if start, err := g.in.Peek(2); err == nil && string(start) != "\x1f\x8b" {
		return errors.New("something that is not gzip follows the compressed data: fetch the file again")
	}
	if err := g.member.Reset(g.in); err != nil {
		return err
	}
	g.member.Multistream(false)
	return nil
}

// zstdFrames reads the frames of a zstd file.
type zstdFrames struct{ *zstd.Decoder }

func newZstdFrames(f io.Reader) (zstdFrames, error) {
	d, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	return zstdFrames{d}, err
}

func (z zstdFrames) Read(p []byte) (int, error) {
	n, err := z.Decoder.Read(p)
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = fmt.Errorf("a frame of zstd has a window of more than %d MiB, which takes too much memory: compress "+
			"the file again without --long or --ultra: "+
			"zstd -dc --long=31 FILE | zstd > NEW.zst", maxWindow>>20)
	case errors.Is(err, zstd.ErrMagicMismatch):
		err = errors.New("something that is not zstd follows the compressed data: fetch the file again")
	}
	return n, cutShort(err)
}

// cutShort explains the error of compressed data that ends early.
func cutShort(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the compressed data ends early: the file is truncated: fetch it again")
	}
	return err
}

// bounded is a reader that fails after the bytes that are left.
type bounded struct {
	in   io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the file unpacks to more than %d times its size: such a file is refused", unpackedPerByte)
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// markBetween is a mark of byte order between two objects, where two files without a line end at their ends were
// joined.
var markBetween = []byte("}" + filetype.ByteOrderMark + "{")

// mayBeJoined tells whether a line may hold several objects. The bytes between two objects occur in a single object
// only within a string.
func mayBeJoined(line []byte) bool {
	return bytes.Contains(line, []byte("}{")) || bytes.Contains(line, markBetween)
}
