package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds a message, in bytes.
const maxLine = 1 << 20

var errLongLine = fmt.Errorf("a message has at most %d bytes: the line is left out", maxLine)

// typedLine is how many bytes of a line a terminal of Linux hands over: of a longer one, the rest is lost.
const typedLine = 4095

var errCutLine = fmt.Errorf(`a terminal hands over the first %d bytes of a line: the line is left out; end its parts `+
	`with \, or continue a file (run --prompt-file)`, typedLine)

// lines reads messages: lines, of which one that ends in a backslash goes on with the next.
type lines struct {
	in    *bufio.Reader
	typed bool // at a terminal
}

func newLines(in io.Reader, typed bool) *lines { return &lines{bufio.NewReader(in), typed} }

// message returns the next message, whose bytes need not be UTF-8. It calls more before every line but the first. The
// error at the end is io.EOF.
func (l *lines) message(more func()) (string, error) {
	var message strings.Builder
	for {
		line, err := l.line()
		atEnd := err == io.EOF && message.Len() > 0
		if err != nil && !atEnd {
			return "", err
		}
		before, goesOn := strings.CutSuffix(line, `\`)
		if message.WriteString(before); !goesOn {
			return message.String(), nil
		}
		if message.Len() > maxLine {
			return "", errLongLine
		}
		message.WriteByte('\n')
		more()
	}
}

// line returns a line without its end. Of a line that is too long nothing is kept.
func (l *lines) line() (string, error) {
	var line []byte
	long := false
	for {
		part, err := l.in.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxLine; !long {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (err != io.EOF || len(line) == 0 && !long):
			return "", err
		case long:
			return "", errLongLine
		}
		line = bytes.TrimRight(line, "\r\n")
		if l.typed && len(line) >= typedLine {
			return "", errCutLine
		}
		return string(line), nil
	}
}
