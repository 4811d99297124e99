package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// sniffed is how many of a file's first bytes tell what it is.
const sniffed = 64

const theCheckpoint = ": name the checkpoint, step-000600.safetensors for instance"

// foreign says what a file is that begins with head and is no checkpoint, or nothing.
func foreign(head []byte) string {
	for _, known := range []struct{ prefix, what string }{
		{"BIT2", "a packed model (.bit2), whose weights are signs alone" + theCheckpoint + ", of which it was made"},
		{"ARROW1", "an Arrow file, of tokens perhaps" + theCheckpoint + "; datasets are named by their manifest.json"},
		{"PAR1", "a parquet file, of documents perhaps" + theCheckpoint},
		{"GGUF", "a GGUF model: export the tensors as safetensors from the program that trained it"},
		{"\x89HDF", "an HDF5 file: save the parameters as safetensors or with torch.save"},
		{"\x93NUMPY", "a NumPy array: save the parameters as safetensors or with torch.save"},
		{"version https://git-lfs", "a pointer of Git LFS and not the data: git lfs pull fetches the data"},
		{"\x1f\x8b", "compressed with gzip: gunzip it first"},
		{"\x28\xb5\x2f\xfd", "compressed with zstd: zstd -d decompresses it"},
		{"\xfd7zXZ\x00", "compressed with xz: unxz it first"},
		{"BZh", "compressed with bzip2: bunzip2 it first"},
	} {
		if bytes.HasPrefix(head, []byte(known.prefix)) {
			return known.what
		}
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\uFEFF")))
	switch {
	case len(text) == 0:
		return "empty (was it cut off while it was copied?)"
	case bytes.HasPrefix(text, []byte(`{"event"`)):
		return "the log of a training" + theCheckpoint + ", which lies beside it"
	case bytes.HasPrefix(text, []byte(`{"format":"bitnet1.dataset`)):
		return "the manifest of a dataset" + theCheckpoint
	case text[0] == '{' || text[0] == '[':
		return "JSON text" + theCheckpoint + " (of a model in several files, each file is safetensors, and none is the whole model)"
	case text[0] == '<':
		return "a web page (HTML or XML), as servers send in place of a file that they do not give: fetch the file again"
	case !bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' }):
		return "text" + theCheckpoint
	}
	return ""
}

// families are other models, told by a part of a tensor's name.
var families = []struct{ part, what string }{
	{"self_attn.q_proj", "a Llama or one of its kin (Hugging Face)"},
	{"self_attn.qkv_proj", "a Phi or one of its kin (Hugging Face)"},
	{"attn.c_attn", "a GPT-2 (Hugging Face, nanoGPT)"},
	{"attention.query_key_value", "a GPT-NeoX, Bloom or Falcon (Hugging Face)"},
	{"attention.self.query", "a BERT (Hugging Face)"},
	{"attention.wq", "a Llama as Meta saves it"},
	{"embed_tokens", "a language model of Hugging Face"},
	{"lora_A", "an adapter (LoRA)"},
}

// notOurs is the error for a file none of whose tensors the model has.
func notOurs(names []string) error {
	for _, f := range families {
		if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, f.part) }) {
			return fmt.Errorf("it holds %s: bitnet1 runs its own models, whose every weight is ±1, and cannot convert others: train one (task pipeline:v76)", f.what)
		}
	}
	if len(names) == 0 {
		return errors.New("it holds no tensors")
	}
	return fmt.Errorf("none of its %d tensors (%.200q …) is one of a bitnet1 model, which has %s: docs/formats/checkpoint.md lists their names",
		len(names), names[:min(len(names), 3)], strings.Join(roots(), ", "))
}
