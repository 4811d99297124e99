package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/vfs"
)

// holdAt is set for programs that wait before they log a step: a program that a test is to stop must not have ended
// when a busy machine lets the test go on. It gives the step, and the file that ends the waiting.
const holdAt = "BITNET1_TEST_HOLD_AT"

func TestMain(m *testing.M) {
	if step, file, held := strings.Cut(os.Getenv(holdAt), " "); held {
		vfs.OS = heldFS{vfs.OS, []byte(`"step":` + step + ","), file}
	}
	measuretest.Main(m, main)
}

// hold lets a program wait some steps after the one after which it is to be stopped, until let is called.
func hold(t *testing.T, cmd *exec.Cmd, after int) (let func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "let")
	t.Cleanup(func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill() // one that waits for a test that has failed
		}
	})
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d %s", holdAt, after+3, file))
	return func() {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Error(err)
		}
	}
}

type heldFS struct {
	vfs.FS
	line []byte
	file string
}

func (f heldFS) OpenFile(path string, flag int, mode fs.FileMode) (vfs.File, error) {
	opened, err := f.FS.OpenFile(path, flag, mode)
	if err == nil && filepath.Base(path) == trainlog.FileName {
		return heldLog{opened, f}, nil
	}
	return opened, err
}

type heldLog struct {
	vfs.File
	heldFS heldFS
}

// Write waits before the line, and not before those that come with it.
func (l heldLog) Write(b []byte) (n int, err error) {
	if at := bytes.Index(b, l.heldFS.line); at >= 0 {
		begin := bytes.LastIndexByte(b[:at], '\n') + 1
		if n, err = l.File.Write(b[:begin]); err != nil {
			return n, err
		}
		for _, err := os.Stat(l.heldFS.file); err != nil; _, err = os.Stat(l.heldFS.file) {
			time.Sleep(time.Millisecond)
		}
	}
	rest, err := l.File.Write(b[n:])
	return n + rest, err
}
