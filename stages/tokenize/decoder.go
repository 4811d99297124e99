package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"bitnet1/shared/run/stage"
)

// decoder reads the documents of a file in a process of its own, so that a file that crashes the process, makes it loop
// or makes it take too much memory ends in an error with the row group, and other files are read on.
//
// decoder starts a process that died again, after the last block that it gave. If the process dies there again, the
// file is refused. One death may have another cause, such as an operator or a machine without memory.
type decoder struct {
	request
	silence time.Duration // longest wait for a frame
	times   *stage.Times

	rows  atomic.Int64 // number that the file states, or -1
	group int64        // row group that is being read, or -1
	row   int64        // next row
	odd   []oddRow     // since the last block
}

// Defaults of a decoder. A process at work sends hundreds of frames a second.
const (
	decoderSilence = 2 * time.Minute
	decoderMemory  = 384 << 20
)

// death is the error of a process that ended unasked.
type death struct{ error }

func (d death) Unwrap() error { return d.error }

// read passes the documents of the file, from request.From on and in order, to give, until give returns an error.
func (d *decoder) read(ctx context.Context, give func(*block) error) error {
	last := int64(-1) // row at which the process died last
	for {
		err := d.once(ctx, give)
		if !errors.As(err, new(death)) {
			return err
		}
		if d.From == last {
			return badFile{fmt.Errorf("documents of %s: %s: %w", d.Source, d.place(), err)}
		}
		last = d.From
	}
}

// place describes the present row in messages.
func (d *decoder) place() string {
	if d.group < 0 {
		return fmt.Sprintf("after line %d", d.row)
	}
	return fmt.Sprintf("row group %d, after row %d", d.group, d.row)
}

// once starts the process and reads its frames to the last.
func (d *decoder) once(ctx context.Context, give func(*block) error) error {
	d.group, d.row, d.odd = -1, d.From, nil
	p, err := d.start(ctx)
	if err != nil {
		return err
	}
	defer p.end()
	for {
		started := time.Now()
		kind, data, err := p.next(d.silence)
		d.times.Add(stepDecode, 0, time.Since(started))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return p.died(err, d.silence)
		}
		done, err := d.take(kind, data, give)
		if done || err != nil {
			return err
		}
	}
}

// take handles a frame. It returns true after the last one.
func (d *decoder) take(kind byte, data []byte, give func(*block) error) (done bool, err error) {
	f := &fields{data: data}
	switch kind {
	case frameRows:
		d.rows.Store(f.number())
	case framePlace:
		d.group, d.row = f.number(), f.count()
	case frameBlock:
		b, err := readBlock(data, d.Source, d.From)
		if err != nil {
			return false, death{err}
		}
		d.From = b.next
		b.odd, d.odd = d.odd, nil
		return false, give(b)
	case frameOdd:
		if row := f.count(); len(d.odd) < maxOddRows {
			d.odd = append(d.odd, oddRow{row, strings.ToValidUTF8(string(f.data), "\uFFFD")})
		}
	case frameBad:
		return true, badFile{errors.New(strings.ToValidUTF8(string(data), "\uFFFD"))}
	case frameError:
		return true, errors.New(strings.ToValidUTF8(string(data), "\uFFFD"))
	case frameEnd:
		if took := time.Duration(f.count()) * time.Microsecond; took > 0 {
			d.times.Add(stepFilter, took, took)
			d.times.Add(stepDecode, -took, 0)
		}
		return !f.bad, nil
	default:
		f.bad = true
	}
	if f.bad {
		return false, death{errFrame}
	}
	return false, nil
}

// process is a running decoder.
type process struct {
	*exec.Cmd
	stdin  io.WriteCloser // the process ends when it is closed
	out    *bufio.Reader
	stderr beginning
	timer  *time.Timer
	silent atomic.Bool // whether the timer killed it
	times  *stage.Times
}

// start starts the process. Its environment is empty, because ours may hold secrets. It is in a process group of its
// own, so that Ctrl-C in a terminal does not reach it directly.
func (d *decoder) start(ctx context.Context) (*process, error) {
	program, err := stage.Self()
	if err != nil {
		return nil, err
	}
	p := &process{Cmd: exec.CommandContext(ctx, program, decodeCommand), times: d.times}
	p.Env = []string{}
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Stderr = &p.stderr
	stdout, err := p.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.stdin, err = p.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("starting a process to decode %s: %w", d.Source, err)
	}
	p.out = bufio.NewReaderSize(stdout, 64<<10)
	p.timer = time.AfterFunc(time.Hour, func() {
		p.silent.Store(true)
		_ = p.Process.Kill()
	})
	p.timer.Stop()
	if err := json.NewEncoder(p.stdin).Encode(d.request); err != nil {
		defer p.end()
		return nil, p.died(err, d.silence)
	}
	return p, nil
}

// next waits for a frame.
func (p *process) next(silence time.Duration) (kind byte, data []byte, err error) {
	p.timer.Reset(silence)
	defer p.timer.Stop()
	return readFrame(p.out)
}

// end kills the process if it still runs, and adds its processor time to the times.
func (p *process) end() {
	p.timer.Stop()
	_ = p.stdin.Close()
	_ = p.Process.Kill()
	p.wait()
}

func (p *process) wait() {
	if p.ProcessState == nil {
		_ = p.Wait()
		p.times.Add(stepDecode, p.busy(), 0)
	}
}

// busy is the processor time of a process that has ended.
func (p *process) busy() time.Duration {
	if p.ProcessState == nil {
		return 0 // the system would not say
	}
	return p.ProcessState.UserTime() + p.ProcessState.SystemTime()
}

// died is the error of a process from which no further frame came. A process that was idle waited for the disk: that is
// no death, and the file is not refused.
func (p *process) died(err error, silence time.Duration) error {
	if errors.Is(err, errFrame) {
		return death{err}
	}
	// The output has ended, so the process is about to end. If it does not, it is killed.
	last := time.AfterFunc(10*time.Second, func() { _ = p.Process.Kill() })
	defer last.Stop()
	p.wait()
	switch {
	case p.silent.Load() && p.busy() < silence/10:
		return fmt.Errorf("decoding: nothing came for %v, and the process was idle: does the disk answer?", silence)
	case p.silent.Load():
		return death{fmt.Errorf("decoding took longer than %v and was ended", silence)}
	}
	said := cmp.Or(p.stderr.line(), err.Error())
	return death{fmt.Errorf("the process that decodes it died: %v: %s", p.ProcessState, said)}
}

// beginning keeps the first bytes of the process's standard error: the first line of a crash says what happened.
type beginning struct{ data []byte }

func (b *beginning) Write(p []byte) (int, error) {
	b.data = append(b.data, p[:min(len(p), 4096-len(b.data))]...)
	return len(p), nil
}

func (b *beginning) line() string {
	line, _, _ := bytes.Cut(b.data, []byte("\n"))
	return strings.ToValidUTF8(string(line), "\uFFFD")
}
