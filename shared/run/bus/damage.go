package bus

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/minio/highwayhash"
)

// A nats-server hashes what it keeps, and at its start it reads little of that: it leaves out a stream whose
// configuration is damaged, and it delivers nothing from a damaged message on. So the files are checked here before a
// server starts on them. Their layout is that of package server's filestore.go:
//
//	jetstream/ACCOUNT/streams/STREAM/meta.inf, meta.sum         configuration, and its hash
//	jetstream/ACCOUNT/streams/STREAM/msgs/1.blk, 2.blk …        messages, each with its hash
//	jetstream/ACCOUNT/streams/STREAM/msgs/index.db              what the messages say, and at its end its hash
//	jetstream/ACCOUNT/streams/STREAM/obs/CONSUMER/meta.inf, …   the same for consumers
//
// A hash is HighwayHash-64, under a key that is SHA-256 of a name.

// ErrFile is the error of a damaged file of an event server. Its text is part of a sentence.
var ErrFile = errors.New("the event server's file is damaged")

// Damage is a damaged file of an event server.
type Damage struct {
	Path   string
	Stream string // whose file it is
	Err    error
	Lost   bool // the stream is lost with the file; otherwise the server makes the file again

	dir string // of the stream
}

func (d Damage) Error() string { return d.Path + ": " + d.Err.Error() }

// Unwrap makes a Damage an ErrFile.
func (d Damage) Unwrap() error { return ErrFile }

// FindDamage checks the files of a server that keeps its streams under dir. No server may be at work there. A folder
// without streams has no damage.
func FindDamage(dir string) (all []Damage, err error) {
	streams, err := filesIn(dir, "jetstream/*/streams/[^.]*")
	for _, stream := range streams {
		all = append(all, damageOf(stream)...)
	}
	return all, err
}

// filesIn lists the files of dir whose paths in it match a pattern.
func filesIn(dir, pattern string) (paths []string, err error) {
	names, err := fs.Glob(os.DirFS(dir), pattern)
	for _, name := range names {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths, err
}

// damageOf checks the files of a stream.
func damageOf(dir string) (all []Damage) {
	stream := filepath.Base(dir)
	add := func(path string, lost bool, err error) {
		if err != nil {
			all = append(all, Damage{Path: path, Stream: stream, Err: err, Lost: lost, dir: dir})
		}
	}
	path := filepath.Join(dir, metaName)
	add(path, true, checkMeta(path, stream))
	blocks, _ := filesIn(dir, "msgs/*.blk") // the pattern is right
	for _, path := range blocks {
		add(path, true, checkBlock(path, stream))
	}
	path = filepath.Join(dir, "msgs", "index.db")
	add(path, false, checkIndex(path, stream))
	if len(blocks) > 0 {
		add(blocks[0], true, checkEmptied(blocks, path, stream))
	}
	consumers, _ := filesIn(dir, "obs/*")
	for _, consumer := range consumers {
		path := filepath.Join(consumer, metaName)
		add(path, false, checkMeta(path, stream+"/"+filepath.Base(consumer)))
	}
	return all
}

// hash is the server's hash of parts of a file.
func hash(name string, parts ...[]byte) []byte {
	key := sha256.Sum256([]byte(name))
	h, err := highwayhash.New64(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	for _, part := range parts {
		_, _ = h.Write(part)
	}
	return h.Sum(nil)
}

// checkMeta checks a configuration, whose hash is in a file beside it.
func checkMeta(path, name string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(strings.TrimSuffix(path, "inf") + "sum")
	if err != nil {
		return err
	}
	if hex.EncodeToString(hash(name, b)) != string(sum) {
		return errHash
	}
	return nil
}

var errHash = errors.New("its hash differs")

// checkIndex checks an index, if there is one: a server that is killed leaves none, or one that it does not use.
func checkIndex(path, stream string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	at := len(b) - highwayhash.Size64
	if err == nil && (at < 0 || !bytes.Equal(b[at:], hash(stream, b[:at]))) {
		err = errHash
	}
	return err
}

// checkEmptied checks that blocks without any message belong to an index without a last message. An index ends with the
// hash of that message, 0 for none, and its own. What else may be wrong with them is for checkBlock and checkIndex.
func checkEmptied(blocks []string, index, stream string) error {
	holds := func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || info.Size() > 0
	}
	if slices.ContainsFunc(blocks, holds) || !knowsMessages(index, stream) {
		return nil
	}
	return errors.New("the messages that its index knows of are gone")
}

func knowsMessages(index, stream string) bool {
	b, err := os.ReadFile(index)
	at := len(b) - 2*highwayhash.Size64
	return err == nil && checkIndex(index, stream) == nil && at >= 0 && binary.LittleEndian.Uint64(b[at:]) != 0
}

// checkBlock checks the messages in a file.
func checkBlock(path, stream string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	number := strings.TrimSuffix(filepath.Base(path), ".blk")
	for at := 0; at < len(b); {
		size, ok := soundMessage(b[at:], stream+"-"+number)
		if !ok {
			return fmt.Errorf("the message at byte %d is damaged or incomplete", at)
		}
		at += size
	}
	return nil
}

// soundMessage checks the message at the beginning of b, and returns its size with all that belongs to it:
//
//	size uint32, number uint64, time int64, length of the subject uint16,
//	subject, [size of the headers uint32, headers,] data, hash
func soundMessage(b []byte, name string) (size int, ok bool) {
	const fixed, hasHeaders = 22, 1 << 31
	if len(b) < fixed {
		return 0, false
	}
	flags := binary.LittleEndian.Uint32(b)
	size = int(flags &^ hasHeaders)
	content, end := fixed+int(binary.LittleEndian.Uint16(b[20:])), size-highwayhash.Size64
	if size > len(b) || content > end {
		return 0, false
	}
	subject, rest := b[fixed:content], b[content:end]
	if flags&hasHeaders != 0 {
		if len(rest) < 4 {
			return 0, false
		}
		headers := uint64(binary.LittleEndian.Uint32(rest)) // which is not hashed
		rest = rest[4:]
		if headers > uint64(len(rest)) || !bytes.HasSuffix(rest[:headers], []byte("\r\n\r\n")) {
			return 0, false
		}
	}
	return size, bytes.Equal(b[end:size], hash(name, b[4:20], subject, rest))
}

// setAside moves the streams that are lost to the folder damaged, in place of what it moved there before, and removes
// what the server makes again.
func setAside(dir string, all []Damage) error {
	moved := map[string]bool{}
	for _, d := range all {
		switch {
		case d.Lost && !moved[d.dir]:
			moved[d.dir] = true
			to := filepath.Join(dir, damagedName, d.Stream)
			if err := errors.Join(os.RemoveAll(to), os.MkdirAll(filepath.Dir(to), 0o755)); err != nil {
				return err
			}
			if err := os.Rename(d.dir, to); err != nil {
				return err
			}
		case !d.Lost && filepath.Base(d.Path) == metaName: // of a consumer, which goes with its place in the stream
			if err := os.RemoveAll(filepath.Dir(d.Path)); err != nil {
				return err
			}
		case !d.Lost:
			if err := os.RemoveAll(d.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	damagedName = "damaged"
	metaName    = "meta.inf"
)

// historyName is a file beside the streams while the server lacks events that were announced before.
const historyName = "history-is-incomplete"

// mend sets damaged files aside, and notes that the history is to be announced again if there is no stream of events.
func (s *Server) mend() (err error) {
	if s.Damage, err = FindDamage(s.dir); err == nil {
		err = setAside(s.dir, s.Damage)
	}
	if err != nil {
		return err
	}
	streams, err := filesIn(s.dir, "jetstream/*/streams/"+EventStream)
	if err != nil || len(streams) > 0 {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, historyName), nil, 0o644)
}

// LacksHistory reports whether events that were announced before are to be announced again: the server began without a
// stream of events, because the stream was damaged or deleted or because the server is new.
func (s *Server) LacksHistory() bool {
	_, err := os.Stat(filepath.Join(s.dir, historyName))
	return err == nil
}

// HasHistory says that LacksHistory does not hold any more.
func (s *Server) HasHistory() error { return os.RemoveAll(filepath.Join(s.dir, historyName)) }
