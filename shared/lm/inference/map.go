package inference

import (
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapFile returns the bytes of a file, mapped into memory and not to be written. Where mapping is impossible, it reads
// the file. The bytes are valid until the caller calls release.
func mapFile(path string) (b []byte, release func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if n := info.Size(); info.Mode().IsRegular() && n > 0 && n == int64(int(n)) {
		if b, err = unix.Mmap(int(f.Fd()), 0, int(n), unix.PROT_READ, unix.MAP_SHARED); err == nil {
			return b, func() error { return unix.Munmap(b) }, nil
		}
	}
	b, err = io.ReadAll(f)
	return b, func() error { return nil }, err
}

// wordsIn returns the words of little-endian bytes, which they share memory with where the address allows.
func wordsIn(b []byte) ([]uint64, error) {
	const size = int(unsafe.Sizeof(uint64(0)))
	first := unsafe.Pointer(unsafe.SliceData(b))
	if len(b)%size != 0 || uintptr(first)%unsafe.Alignof(uint64(0)) != 0 {
		return nil, fmt.Errorf("%d bytes at %p are no whole words of memory", len(b), first)
	}
	return unsafe.Slice((*uint64)(first), len(b)/size), nil
}
