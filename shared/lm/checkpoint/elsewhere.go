package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bitnet1/shared/filetype"
)

const theCheckpoint = "name the checkpoint, step-000600.safetensors for instance"

// instead is the advice for a file without a state dict, for types without a remedy: filetype.Type.Remedy.
var instead = map[filetype.Type]string{
	filetype.PackedModel: theCheckpoint + ", of which it was made (a packed model has no latents)",
	filetype.TrainingLog: theCheckpoint + ", which lies beside it",
	filetype.Manifest:    theCheckpoint,
	filetype.TokenBatch:  theCheckpoint + "; datasets are named by their manifest.json",
	filetype.Shard:       theCheckpoint + "; datasets are named by their manifest.json",
	filetype.Arrow:       theCheckpoint,
	filetype.Parquet:     theCheckpoint,
	filetype.JSONObject: theCheckpoint + " (of a model in several files, each file is safetensors, and none is the " +
		"whole model)",
	filetype.JSONList: theCheckpoint,
	filetype.Text:     theCheckpoint,
	filetype.GGUF:     "export the tensors as safetensors from the program that trained it",
	filetype.HDF5:     "save the parameters as safetensors or with torch.save",
	filetype.NumPy:    "save the parameters as safetensors or with torch.save",
}

// refuse is the error for a file whose type has no state dict. It is nil for types that damaged state dicts have.
func refuse(path string, t filetype.Type) error {
	switch t {
	case filetype.Safetensors, filetype.ZIP, filetype.Pickle, filetype.Binary:
		return nil
	}
	return fmt.Errorf("%s is %v: %s", path, t, cmp.Or(instead[t], t.Remedy(), theCheckpoint))
}

// families are other models, recognized by a part of a tensor's name.
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

// notOurs is the error for a file without any tensor of the model.
func notOurs(names []string) error {
	for _, f := range families {
		if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, f.part) }) {
			return fmt.Errorf("it holds %s: bitnet1 runs its own models, whose every weight is ±1, and cannot "+
				"convert others: train one (task pipeline:v76)", f.what)
		}
	}
	if len(names) == 0 {
		return errors.New("it holds no tensors")
	}
	return fmt.Errorf("none of its %d tensors (%.200q …) is one of a bitnet1 model, which has %s: "+
		"docs/formats/checkpoint.md lists their names",
		len(names), names[:min(len(names), 3)], strings.Join(roots(), ", "))
}
