package parquet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// The compression codecs of the format.
const (
	codecNone   = 0
	codecSnappy = 1
	codecGzip   = 2
	codecBrotli = 4
	codecLZ4    = 5
	codecZstd   = 6
	codecLZ4Raw = 7
)

var codecNames = [...]string{"UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW"}

func checkCodec(codec int8) error {
	switch codec {
	case codecNone, codecSnappy, codecGzip, codecBrotli, codecLZ4, codecZstd, codecLZ4Raw:
		return nil
	}
	if codec >= 0 && int(codec) < len(codecNames) {
		return fmt.Errorf("compression %s is not supported: write the file with ZSTD or SNAPPY", codecNames[codec])
	}
	return fmt.Errorf("compression %d is unknown: the file is corrupt", codec)
}

// decompress decompresses src into dst, whose length is the size that the page states.
func (f *File) decompress(codec int8, dst, src []byte) error {
	var n int
	var err error
	switch codec {
	case codecNone:
		n = len(src)
		copy(dst, src)
	case codecSnappy:
		if n, err = snappy.DecodedLen(src); err == nil && n == len(dst) {
			_, err = snappy.Decode(dst, src)
		}
	case codecZstd:
		n, err = f.decompressZstd(dst, src)
	case codecGzip:
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(src)); err == nil {
			n, err = fill(dst, r)
		}
	case codecBrotli:
		n, err = fill(dst, brotli.NewReader(bytes.NewReader(src)))
	case codecLZ4Raw:
		n, err = lz4.UncompressBlock(src, dst)
	case codecLZ4:
		n, err = decompressLZ4(dst, src)
	default:
		return checkCodec(codec)
	}
	if err == nil && n != len(dst) {
		err = fmt.Errorf("%d bytes instead of %d", n, len(dst))
	}
	if err != nil {
		return fmt.Errorf("decompressing %s: %w", codecNames[codec], err)
	}
	return nil
}

// fill reads r into dst. It returns more than the length of dst if r has more bytes.
func fill(dst []byte, r io.Reader) (int, error) {
	n, err := io.ReadFull(r, dst)
	if err != nil {
		return n, noEOF(err)
	}
	var more [1]byte
	if _, err := io.ReadFull(r, more[:]); err == nil {
		n++
	} else if err != io.EOF {
		return n, err
	}
	return n, nil
}

func (f *File) decompressZstd(dst, src []byte) (int, error) {
	d, ok := f.zstd.Get().(*zstd.Decoder) // making one takes memory and time
	if !ok {
		var err error
		d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return 0, err
		}
	}
	defer f.zstd.Put(d)
	// The capacity bounds the output; what does not fit is an error and not a larger array.
	out, err := d.DecodeAll(src, dst[:0:len(dst)])
	return len(out), err
}

// decompressLZ4 reads Hadoop's frames: blocks that follow their two lengths. Early versions of parquet-cpp wrote a bare
// block under the same codec.
func decompressLZ4(dst, src []byte) (int, error) {
	n, err := decompressHadoop(dst, src)
	if err == nil && n == len(dst) {
		return n, nil
	}
	return lz4.UncompressBlock(src, dst)
}

func decompressHadoop(dst, src []byte) (total int, err error) {
	for len(src) > 0 {
		if len(src) < 8 {
			return total, errors.New("a frame that ends early")
		}
		plain, packed := int64(binary.BigEndian.Uint32(src)), int64(binary.BigEndian.Uint32(src[4:]))
		src = src[8:]
		if packed > int64(len(src)) || plain > int64(len(dst)-total) {
			return total, errors.New("a frame larger than its page")
		}
		n, err := lz4.UncompressBlock(src[:packed], dst[total:total+int(plain)])
		if err != nil {
			return total, err
		}
		if int64(n) != plain {
			return total, fmt.Errorf("a frame of %d bytes instead of %d", n, plain)
		}
		total += n
		src = src[packed:]
	}
	return total, nil
}
