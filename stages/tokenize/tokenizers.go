package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/digest"
	"bitnet1/shared/filetype"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/stage"
)

// tokenizers caches tokenizers over jobs, because making one takes as long as a small file.
type tokenizers struct {
	mu   sync.Mutex
	made map[string]tokenizer.Tokenizer // by name
}

// get returns the tokenizer that completed parameters name.
func (all *tokenizers) get(p Params) (tokenizer.Tokenizer, error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if made := all.made[p.Tokenizer]; made != nil {
		return made, nil
	}
	var file []byte
	if p.TokenizerFile != "" {
		var err error
		if _, file, err = readTokenizer(p.TokenizerFile); err != nil {
			return nil, err
		}
	}
	made, err := tokenizer.Open(p.Tokenizer, file)
	if err != nil && p.TokenizerFile != "" {
		return nil, fmt.Errorf("%s: %w", p.TokenizerFile, err)
	}
	if err == nil {
		all.made[p.Tokenizer] = made
	}
	return made, err
}

// complete puts the tokenizer of a file in the file's place: its name, which has the digest of the tokenizer.json,
// because a job is known by the contents of the file and not by its path. A file that cannot be read as a tokenizer is
// refused here, before anything starts.
func (all *tokenizers) complete(p *Params) error {
	if tokenizer.Check(p.Tokenizer) == nil {
		if p.TokenizerFile != "" {
			return fmt.Errorf("tokenizer_file %s: the tokenizer is %s, which is built in: leave tokenizer_file out",
				p.TokenizerFile, p.Tokenizer)
		}
		return nil
	}
	named := p.Tokenizer
	if p.TokenizerFile == "" {
		p.TokenizerFile = p.Tokenizer
	}
	name, file, err := readTokenizer(p.TokenizerFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && named == p.TokenizerFile:
		return fmt.Errorf("%w, and no such file", tokenizer.Check(named))
	case errors.Is(err, fs.ErrNotExist):
		return nil // it is gone since, and only a job that encodes misses it
	case err != nil:
		return err
	}
	if file != nil {
		name = tokenizer.FileName(digest.Bytes(file))
	}
	if named != p.TokenizerFile && named != name {
		return fmt.Errorf("%s has the tokenizer %s, and the parameters say %s: the file has changed since",
			p.TokenizerFile, name, named)
	}
	p.Tokenizer = name
	if file == nil {
		p.TokenizerFile = ""
	}
	_, err = all.get(*p)
	return err
}

// readTokenizer reads a tokenizer.json, or finds the tokenizer of a model: its tokenizer.json, or the name of a
// built-in one.
func readTokenizer(path string) (name string, file []byte, err error) {
	is, err := filetype.OfFile(path)
	if err != nil {
		return "", nil, fmt.Errorf("tokenizer: %w", err)
	}
	var model checkpoint.Provenance
	switch is {
	case filetype.JSONObject:
		file, err := os.ReadFile(path)
		return "", file, err
	case filetype.PackedModel:
		m, err := bit2.Open(path)
		if err != nil {
			return "", nil, err
		}
		defer m.Close()
		model = m.Provenance
	case filetype.Safetensors:
		m, err := checkpoint.Open(path)
		if err != nil {
			return "", nil, err
		}
		defer m.Close()
		model = m.Provenance
	default:
		return "", nil, fmt.Errorf("tokenizer: %s is %v: name a tokenizer.json, a checkpoint or a packed model", path,
			is)
	}
	if model.Tokenizer == "" || model.TokenizerFile == nil && tokenizer.Check(model.Tokenizer) != nil {
		return "", nil, fmt.Errorf("tokenizer: the model %s does not hold its tokenizer (%q)", path, model.Tokenizer)
	}
	return model.Tokenizer, model.TokenizerFile, nil
}

// keep makes the tokenizer.json an artifact that the tokens are announced with; nil: the tokenizer is built in.
func keep(job *stage.Job[Params], t tokenizer.Tokenizer) (*artifact.Ref, error) {
	file := tokenizer.File(t)
	if file == nil {
		return nil, nil
	}
	ref, err := artifact.Put(job, "tokenizer", "application/json", dataset.InfoOf(t).FileName(), file)
	return &ref, err
}

// checkTokenizer refuses names that are neither those of built-in tokenizers nor of files.
func checkTokenizer(p Params) error {
	err := tokenizer.Check(p.Tokenizer)
	if err == nil || p.TokenizerFile != "" && strings.HasPrefix(p.Tokenizer, tokenizer.FilePrefix) {
		return nil
	}
	if _, failed := os.Stat(p.Tokenizer); failed == nil {
		return nil
	}
	return fmt.Errorf("%w, and there is no such file", err)
}
