//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/driver"
	"bitnet1/kernels/timing"

	"gorgonia.org/cu"
)

// Copies between the host and the device go through page-locked memory, a piece at a time. Copies of other memory would
// make the driver wait for everything that is queued.
const (
	pieceBytes   = 1 << 20
	uploadPieces = 8
)

// piece is page-locked memory for one copy.
type piece struct {
	host   unsafe.Pointer
	copied cu.Event // recorded behind the copy out of it, or into it
	queued bool
}

func (p *piece) open() (err error) {
	if p.host, err = driver.AllocHost(pieceBytes); err != nil {
		return fmt.Errorf("%d bytes of page-locked memory: %w", pieceBytes, err)
	}
	p.copied, err = cu.MakeEvent(cu.DisableTiming)
	return err
}

func (p *piece) close() error {
	if p.host == nil {
		return nil
	}
	err := cu.DestroyEvent(&p.copied)
	if e := cu.MemFreeHost(p.host); err == nil {
		err = e
	}
	*p = piece{}
	return err
}

// bytes are the first n bytes of p.
func (p *piece) bytes(n int) []byte { return unsafe.Slice((*byte)(p.host), n) }

// uploads are pieces that are used in turn. The host runs ahead of the device by that many.
type uploads struct {
	pieces [uploadPieces]piece
	next   int
}

// free returns a piece whose copy, if there was one, is done.
func (u *uploads) free() (*piece, error) {
	p := &u.pieces[u.next]
	u.next = (u.next + 1) % len(u.pieces)
	if p.host == nil {
		return p, p.open()
	}
	if !p.queued {
		return p, nil
	}
	p.queued = false
	return p, p.copied.Synchronize()
}

func (u *uploads) close() (err error) {
	for i := range u.pieces {
		if e := u.pieces[i].close(); err == nil {
			err = e
		}
	}
	return err
}

// send queues a copy to the device; `from` may be reused at once.
func (d *Device) send(to cu.DevicePtr, from unsafe.Pointer, bytes int) error {
	if d.recording {
		return fmt.Errorf("copy of %d bytes while a graph is being recorded", bytes)
	}
	if d.dryRun {
		return nil
	}
	for at := 0; at < bytes; at += pieceBytes {
		n := min(pieceBytes, bytes-at)
		p, err := d.uploads.free()
		if err != nil {
			return err
		}
		copy(p.bytes(n), unsafe.Slice((*byte)(unsafe.Add(from, at)), n))
		if err := cu.MemcpyHtoDAsync(to+cu.DevicePtr(at), p.host, int64(n), d.stream); err != nil {
			return err
		}
		if err := p.copied.Record(d.stream); err != nil {
			return err
		}
		p.queued = true
	}
	return nil
}

// Copy copies src to the start of dst.
func (d *Device) Copy(dst, src kernels.Floats) {
	d.run("Copy", kernels.CheckCopy(dst, src), func() error {
		n := src.Len()
		to, from := float32s(dst, n), float32s(src, n)
		return d.timed(timing.Operation{Name: "copy", Category: timing.Copies}, func() error {
			return cu.MemcpyDtoDAsync(to, from, int64(4*n), d.stream)
		})
	})
}

// reader downloads on a stream of its own. It uses nothing of its device that operations change.
type reader struct {
	index   int
	context cu.CUContext
	stream  cu.Stream
	begin   cu.Event // behind what was enqueued when the reader was made
	piece   piece
}

// NewReader returns a reader, which downloads while operations that are enqueued later run.
func (d *Device) NewReader() (kernels.Reader, error) {
	d.run("NewReader", nil, func() error {
		if d.dryRun {
			return nil
		}
		if d.reader == nil {
			r := &reader{index: d.index, context: d.context}
			if err := r.open(); err != nil {
				return err
			}
			d.reader = r
		}
		return d.reader.begin.Record(d.stream)
	})
	if d.err != nil {
		return nil, d.err
	}
	return d.reader, nil
}

func (r *reader) open() (err error) {
	if r.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return err
	}
	if r.begin, err = cu.MakeEvent(cu.DisableTiming); err != nil {
		return err
	}
	return r.piece.open()
}

func (r *reader) close() error {
	if r == nil {
		return nil
	}
	err := r.piece.close()
	if e := r.stream.Destroy(); err == nil {
		err = e
	}
	return err
}

// Read waits for what was enqueued before NewReader and copies the start of src.
func (r *reader) Read(dst []float32, src kernels.Floats) error {
	if err := kernels.CheckRead(len(dst), src); err != nil {
		return fmt.Errorf("CUDA device %d: Read: %w", r.index, err)
	}
	release, err := enter(r.context, r.index)
	if err != nil {
		return err
	}
	defer release()
	to := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 4*len(dst))
	if err := r.read(to, float32s(src, len(dst))); err != nil {
		return fmt.Errorf("CUDA device %d: reading %d floats: %w", r.index, len(dst), advise(err))
	}
	return nil
}

func (r *reader) read(dst []byte, from cu.DevicePtr) error {
	if err := r.stream.Wait(r.begin, 0); err != nil {
		return err
	}
	for at := 0; at < len(dst); at += pieceBytes {
		n := min(pieceBytes, len(dst)-at)
		if err := cu.MemcpyDtoHAsync(r.piece.host, from+cu.DevicePtr(at), int64(n), r.stream); err != nil {
			return err
		}
		if err := r.stream.Synchronize(); err != nil {
			return err
		}
		copy(dst[at:], r.piece.bytes(n))
	}
	return nil
}
