// Package container opens files of tensors, which are read at any place. It knows no format: see safetensors, pytorch
// and bit2.
package container

import (
	"io"
	"os"
)

// Open opens the file at path and has read, which is New of a format, make its result of the file. The caller closes
// the file with close. If read fails, Open closes the file.
func Open[F any](path string, read func(name string, source io.ReaderAt, size int64) (F, error)) (
	result F, close func() error, err error) {
	file, err := os.Open(path)
	if err != nil {
		return result, nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return result, nil, err
	}
	result, err = read(path, file, info.Size())
	return result, file.Close, err
}
