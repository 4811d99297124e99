package huggingface

import (
	"encoding/json"
	"maps"

	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/lm/model"
)

// config is config.json: the model's options, and what transformers needs to find its classes.
func (m *Model) config() ([]byte, error) {
	text, err := json.Marshal(m.Config)
	all := map[string]any{}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, err
	}
	all["gamma"], all["documents"] = m.Gamma, model.Packed
	if m.Documents.Separate {
		all["documents"], all["end_of_text"] = model.Separate, m.Documents.EndOfText
	}
	all["model_type"], all["architectures"] = "bitnet1", []string{"BitNet1ForCausalLM"}
	all["auto_map"] = map[string]string{"AutoConfig": "configuration_bitnet1.BitNet1Config",
		"AutoModelForCausalLM": "modeling_bitnet1.BitNet1ForCausalLM"}
	all["dtype"], all["use_cache"], all["tie_word_embeddings"] = "float32", false, false
	maps.Copy(all, m.endOfText())
	return indented(all)
}

// generationConfig is generation_config.json. Rows of the codebook that no token of the tokenizer has were never
// trained, and are never written.
func (m *Model) generationConfig() ([]byte, error) {
	all := map[string]any{"use_cache": false, "do_sample": false}
	maps.Copy(all, m.endOfText())
	if m.Tokenizer != nil && m.Tokenizer.Vocab() < m.Config.Vocab {
		var untrained []int
		for id := m.Tokenizer.Vocab(); id < m.Config.Vocab; id++ {
			untrained = append(untrained, id)
		}
		all["suppress_tokens"] = untrained
	}
	return indented(all)
}

// endOfText is the one special token: it begins, ends and pads texts.
func (m *Model) endOfText() map[string]any {
	if m.Tokenizer == nil {
		return nil
	}
	id := m.Tokenizer.EndOfText()
	return map[string]any{"bos_token_id": id, "eos_token_id": id, "pad_token_id": id}
}

// tokenizerConfig is tokenizer_config.json. As in this project, a special token in a text is ordinary text.
func (m *Model) tokenizerConfig() ([]byte, error) {
	end := tokenizer.EndOfTextName(m.Tokenizer)
	return indented(map[string]any{
		"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": m.Config.Seq, "padding_side": "left",
		"bos_token": end, "eos_token": end, "pad_token": end,
		"split_special_tokens": true, "clean_up_tokenization_spaces": false,
		"model_input_names": []string{"input_ids", "attention_mask"},
	})
}

func indented(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}
