package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"bitnet1/shared/data/documents"
)

// decodeCommand is the first argument of the process that decodes a file. decoder starts it, and people do not: the
// process is this program.
const decodeCommand = "decode"

// request is the first line of the process's standard input. The process ends when its standard input does.
type request struct {
	Path   []byte // bytes, because a JSON string would lose what is not UTF-8
	Source string
	From   int64
	Params Params
	Memory int64 // limit of the process's memory, bytes
}

func decodeMain(in io.Reader, out, errors io.Writer) int {
	var r request
	d := json.NewDecoder(in)
	if err := d.Decode(&r); err != nil {
		fmt.Fprintln(errors, "tokenize decode is started by tokenize itself:", err)
		return 2
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(1) // the process that wanted the file is gone
	}()
	if err := decode(r, out); err != nil {
		fmt.Fprintln(errors, err)
		return 1
	}
	return 0
}

// decode reads a file and writes its documents to out as frames. Errors of the file are frames too; decode returns
// errors of out alone.
func decode(r request, out io.Writer) error {
	limitMemory(r.Memory)
	w := &frameWriter{out: bufio.NewWriterSize(out, 64<<10)}
	var lost error
	o, err := r.Params.options()
	if err != nil {
		return w.message(frameError, err.Error())
	}
	o.Source, o.From, o.MaxDocument = r.Source, r.From, maxDocument
	o.At = func(group int, row int64) {
		if err := w.numbers(framePlace, int64(group), row); err != nil {
			lost = err
		}
	}
	told := 0
	o.Odd = func(row int64, why string) {
		if told++; told > maxOddRows {
			return
		}
		if err := w.odd(row, why); err != nil {
			lost = err
		}
	}
	reader, err := documents.Open(string(r.Path), o)
	if err != nil {
		return w.message(blame(err), err.Error())
	}
	defer reader.Close()
	if err := w.numbers(frameRows, reader.Rows()); err != nil {
		return err
	}
	err = readBlocks(reader, func(b *block) error {
		lost = w.block(b)
		return lost
	})
	switch {
	case lost != nil:
		return lost
	case err != nil:
		return w.message(blame(err), err.Error())
	}
	return w.numbers(frameEnd, reader.Filtering().Microseconds())
}

// blame is the kind of frame for an error: frameBad if the contents of the file caused it, frameError if the disk did.
func blame(err error) byte {
	if errors.As(err, new(*fs.PathError)) {
		return frameError
	}
	return frameBad
}

// limitMemory limits the memory of the process. From half of the limit on the collector works harder. Beyond the limit
// the system refuses memory, where it can, and the runtime ends the process.
func limitMemory(most int64) {
	debug.SetMemoryLimit(most / 2)
	if limited {
		limit := unix.Rlimit{Cur: uint64(most), Max: uint64(most)}
		_ = unix.Setrlimit(unix.RLIMIT_DATA, &limit)
	}
}
