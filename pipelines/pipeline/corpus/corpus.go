// Package corpus makes a small sample corpus out of prose that every machine able to build this project already has:
// three public-domain books that lie in the Go installation and in a module the build needs.
//
// The files have the schema of FineWeb-Edu, so that the whole pipeline can be tried without a download. The package is
// not a crawler and not a source of training data at scale.
package corpus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"bitnet1/shared/data/tokenizer"
)

// Report says what a sample corpus was made of.
type Report struct {
	Books   []Book
	Missing []string // why a book was left out, one line each
}

// Book is one file of the corpus.
type Book struct {
	Title     string
	File      string // base name in the directory of the corpus
	Documents int
	Bytes     int64 // of text
	Tokens    int64 // GPT-2's
}

// Totals sums the books.
func (r Report) Totals() (documents int, size, tokens int64) {
	for _, b := range r.Books {
		documents += b.Documents
		size += b.Bytes
		tokens += b.Tokens
	}
	return documents, size, tokens
}

// book says where a text lies and how it falls into documents.
type book struct {
	name, title string
	locate      func() (string, error)
	heading     *regexp.Regexp // begins a document; what comes before the first is front matter and left out
}

// minDocument is the length in bytes below which a heading does not end a document: a part's title directly above a
// chapter's stays with that chapter.
const minDocument = 1000

const lz4Module = "github.com/pierrec/lz4/v4@v4.1.18"

var books = []book{
	{
		name: "opticks", title: "Isaac Newton: Opticks (1730)",
		locate:  inGo("src/testdata/Isaac.Newton-Opticks.txt"),
		heading: regexp.MustCompile(`(?m)^(THE FIRST BOOK OF OPTICKS$|THE\n\n(SECOND|THIRD) BOOK$|_?PROP\.|_Qu(ery|\.)_ \d)`),
	},
	{
		name: "sherlock-holmes", title: "Arthur Conan Doyle: The Adventures of Sherlock Holmes (1892)",
		locate:  inModule(lz4Module, "testdata/pg1661.txt"),
		heading: regexp.MustCompile(`(?m)^(ADVENTURE [IVX]+\.|[IVX]+\. THE ADVENTURE OF)`),
	},
	{
		name: "tom-sawyer", title: "Mark Twain: The Adventures of Tom Sawyer (1876)",
		locate:  inModule(lz4Module, "testdata/Mark.Twain-Tom.Sawyer.txt"),
		heading: regexp.MustCompile(`(?m)^(CHAPTER [IVXL]+|CONCLUSION)$`),
	},
}

// Sample writes the corpus into dir, one parquet file a book, and reports what it used. The bytes are the same on every
// machine. A text that cannot be found is reported and left out; Sample fails when none can.
//
// It asks the go command where the texts are, which downloads the module if it is missing.
func Sample(dir string) (Report, error) {
	tok, err := tokenizer.New("gpt2")
	if err != nil {
		return Report{}, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return Report{}, fmt.Errorf("sample corpus: %w", err)
	}
	var report Report
	for _, b := range books {
		docs, err := b.documents()
		if err != nil {
			report.Missing = append(report.Missing, fmt.Sprintf("%s: %v", b.title, err))
			continue
		}
		made := Book{Title: b.title, File: b.name + ".parquet", Documents: len(docs)}
		rows := make([]row, len(docs))
		var ids []uint32
		for i, text := range docs {
			ids = tok.Encode(ids[:0], text)
			rows[i] = row{text: text, id: fmt.Sprintf("%s/%03d", b.name, i+1), url: "sample:" + b.name, file: b.name,
				tokens: int64(len(ids))}
			made.Bytes += int64(len(text))
			made.Tokens += int64(len(ids))
		}
		if err := writeFile(filepath.Join(dir, made.File), rows); err != nil {
			return report, fmt.Errorf("sample corpus: %w", err)
		}
		report.Books = append(report.Books, made)
	}
	if len(report.Books) == 0 {
		return report, fmt.Errorf("sample corpus: none of the texts was found: install Go with its sources, or run "+
			"`go mod download %s`:\n%s",
			lz4Module, strings.Join(report.Missing, "\n"))
	}
	return report, nil
}

// documents reads the book and splits it at its headings.
func (b book) documents() ([][]byte, error) {
	path, err := b.locate()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	text = body(text)
	starts := b.heading.FindAllIndex(text, -1)
	if len(starts) == 0 {
		return nil, errors.New("the text has no chapter headings: it is another edition than expected")
	}
	var docs [][]byte
	start := starts[0][0]
	for i := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		if end-start < minDocument && end < len(text) {
			continue
		}
		docs = append(docs, append(bytes.TrimSpace(text[start:end:end]), '\n'))
		start = end
	}
	return docs, nil
}

var (
	gutenbergStart = regexp.MustCompile(`(?m)^\*\*\* START OF .*$`)
	gutenbergEnd   = regexp.MustCompile(`(?m)^(End of (the )?Project Gutenberg|\*\*\* END OF ).*$`)
)

// body normalises line ends and cuts off what Project Gutenberg puts around a book.
func body(text []byte) []byte {
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if m := gutenbergStart.FindIndex(text); m != nil {
		text = text[m[1]:]
	}
	if m := gutenbergEnd.FindIndex(text); m != nil {
		text = text[:m[0]]
	}
	return text
}

// inGo locates a file of the Go installation.
func inGo(name string) func() (string, error) {
	return func() (string, error) {
		root, err := goCommand("env", "GOROOT")
		return filepath.Join(strings.TrimSpace(string(root)), filepath.FromSlash(name)), err
	}
}

// inModule locates a file of a module, downloading the module if it is not in the cache.
func inModule(module, name string) func() (string, error) {
	return func() (string, error) {
		out, err := goCommand("mod", "download", "-json", module)
		if err != nil {
			return "", err
		}
		var found struct{ Dir string }
		if err := json.Unmarshal(out, &found); err != nil || found.Dir == "" {
			return "", fmt.Errorf("go mod download %s: no directory in its answer", module)
		}
		return filepath.Join(found.Dir, filepath.FromSlash(name)), nil
	}
}

func goCommand(args ...string) ([]byte, error) {
	out, err := exec.Command("go", args...).Output()
	if err == nil {
		return out, nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(append(exit.Stderr, out...)))
	}
	return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
}
