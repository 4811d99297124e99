package tasks

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"bitnet1/shared/digest"
	"bitnet1/shared/filetype"
)

// A file may unpack to at most mostBytes, and a line may have mostLine, so that no file of others fills the memory.
const (
	mostBytes = 1 << 30
	mostLine  = 1 << 24
)

// row is one object of a file of JSON Lines. The first error of its methods stays in err.
type row struct {
	file   string // a member of an archive stands behind the archive
	set    string // name of the file without folders and extensions
	line   int
	values map[string]json.RawMessage
	err    error
}

// has tells whether the row has all of keys, which are separated by spaces.
func (r *row) has(keys string) bool {
	for _, key := range strings.Fields(keys) {
		if _, ok := r.values[key]; !ok {
			return false
		}
	}
	return true
}

func (r *row) keys() []string {
	var keys []string
	for key := range r.values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// read decodes the value of key, where texts.label is the key label of the object texts.
func (r *row) read(key string, into any, want string) {
	outer, inner, nested := strings.Cut(key, ".")
	value := r.values[outer]
	var object map[string]json.RawMessage
	if nested && json.Unmarshal(value, &object) == nil {
		value, nested = object[inner], false
	}
	if err := json.Unmarshal(value, into); (err != nil || nested || string(value) == "null") && r.err == nil {
		r.err = fmt.Errorf("%s is %.40s, want %s", key, strings.ToValidUTF8(string(value), "?"), want)
	}
}

func (r *row) text(key string) (text string) {
	r.read(key, &text, "a text")
	return text
}

func (r *row) texts(key string) (texts []string) {
	r.read(key, &texts, "a list of texts")
	return texts
}

// index is a whole number, which datasets also write as a text, or false and true for 0 and 1.
func (r *row) index(key string) int {
	var value any
	r.read(key, &value, "a number")
	switch v := value.(type) {
	case float64:
		if n := int(v); float64(n) == v {
			return n
		}
	case string:
		if n, err := strconv.Atoi(v); err == nil {
			return n
		}
	case bool:
		if v {
			return 1
		}
		return 0
	}
	if r.err == nil {
		r.err = fmt.Errorf("%s is %v, want a whole number", key, value)
	}
	return -1
}

// label is the place of a label among labels.
func (r *row) label(labels, key string) int {
	label := strings.TrimLeftFunc(r.text(key), isSpace)
	i := slices.Index(r.texts(labels), label)
	if i < 0 && r.err == nil {
		r.err = fmt.Errorf("%s is %q, which is none of %s", key, label, labels)
	}
	return i
}

// extensions are those of the files of a folder that are read.
var extensions = []string{".jsonl", ".jsonl.zst", ".jsonl.gz", ".tar", ".tar.zst", ".tar.gz"}

// Files lists the files that a path stands for: itself, or the files of a folder, sorted, at any depth.
func Files(root string) ([]string, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{root}, nil
	}
	var files []string
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		known := func(e string) bool { return strings.HasSuffix(name, e) }
		if err == nil && !d.IsDir() && slices.ContainsFunc(extensions, known) {
			files = append(files, name)
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("the folder %s has no task files: want %s", root, strings.Join(extensions, ", "))
	}
	return files, err
}

// Digest is a digest of the bytes of the files at root and, in a folder, of their names there.
func Digest(root string) (string, error) {
	files, err := Files(root)
	if err != nil {
		return "", err
	}
	var list strings.Builder
	for _, file := range files {
		sum, _, err := digest.File(file)
		if err != nil {
			return "", err
		}
		if file == root {
			return sum, nil
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&list, "%s %s\n", sum, filepath.ToSlash(name))
	}
	return digest.Bytes([]byte(list.String())), nil
}

// eachRow calls f for every row of the files at root.
func eachRow(root string, f func(*row) error) error {
	files, err := Files(root)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := readFile(file, f); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads a file of JSON Lines or an archive of such files, compressed or not.
func readFile(name string, f func(*row) error) error {
	if err := digest.Regular(name); err != nil {
		return err
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	in, err := unpack(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return readUnpacked(name, in, f)
}

func readUnpacked(name string, in *bufio.Reader, f func(*row) error) error {
	const header, magic = 512, 257 // of tar
	start, _ := in.Peek(header)
	if len(start) < header || string(start[magic:magic+5]) != "ustar" {
		return readLines(name, name, in, f)
	}
	archive := tar.NewReader(in)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, cutShort(err))
		}
		base := path.Base(h.Name)
		if h.Typeflag != tar.TypeReg || strings.HasPrefix(base, ".") || !strings.Contains(base, ".jsonl") {
			continue
		}
		member, err := unpack(archive)
		if err == nil {
			err = readLines(name+": "+h.Name, base, member, f)
		}
		if err != nil {
			return err
		}
	}
}

// unpack decompresses what begins as zstd or gzip does.
func unpack(in io.Reader) (*bufio.Reader, error) {
	packed := bufio.NewReader(in)
	start, _ := packed.Peek(filetype.Sample)
	var plain io.Reader = packed
	var err error
	switch filetype.Of(start) {
	case filetype.Zstd:
		plain, err = zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(mostBytes))
	case filetype.Gzip:
		plain, err = gzip.NewReader(packed)
	}
	if err != nil {
		return nil, cutShort(err)
	}
	return bufio.NewReader(&bounded{plain, mostBytes}), nil
}

type bounded struct {
	in   io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the file unpacks to more than %d MiB, the limit of a task's file", mostBytes>>20)
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func cutShort(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the data ends early: the file is truncated: fetch it again")
	}
	return err
}

// readLines reads the rows of a file. where names the file in errors.
func readLines(where, name string, in io.Reader, f func(*row) error) error {
	set, _, _ := strings.Cut(filepath.Base(name), ".")
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, mostLine)
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(filetype.TrimMarks(lines.Bytes()))
		if len(line) == 0 {
			continue
		}
		r := &row{file: where, set: set, line: n}
		if err := json.Unmarshal(line, &r.values); err != nil {
			return fmt.Errorf("%s: line %d: not a JSON object: %w: the file is truncated, or no JSON Lines", where, n, err)
		}
		if err := f(r); err != nil {
			return err
		}
	}
	err := lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = fmt.Errorf("longer than %d MiB: want JSON Lines, an object a line", mostLine>>20)
	}
	if err != nil {
		return fmt.Errorf("%s: line %d: %w", where, n+1, cutShort(err))
	}
	return nil
}
