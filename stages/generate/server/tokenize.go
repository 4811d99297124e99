package server

import "net/http"

// The endpoints of this file are those of vLLM, as far as lm-evaluation-harness uses them
// (tokenizer_backend=remote): with them it needs no tokenizer of its own.

// tokenizerInfo says by which text a document ends.
func (s *Server) tokenizerInfo(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Name  string  `json:"tokenizer"`
		Vocab int     `json:"vocab_size"`
		BOS   *string `json:"bos_token"`
		EOS   string  `json:"eos_token"`
		Most  int     `json:"max_model_len"`
	}{s.model.Tokenizer.Name(), s.model.Tokenizer.Vocab(), nil, s.name(s.model.EndOfText()), s.model.Config.Seq})
}

// tokenize answers /tokenize.
func (s *Server) tokenize(w http.ResponseWriter, _ *http.Request, body []byte) *apiError {
	var request struct {
		Model            *string `json:"model"`
		Prompt           *string `json:"prompt"`
		AddSpecialTokens *bool   `json:"add_special_tokens"` // this server adds none
	}
	if err := decode(body, &request); err != nil {
		return err
	}
	if err := s.named(request.Model); err != nil {
		return err
	}
	if request.Prompt == nil {
		return invalid("prompt", "a text, which is missing")
	}
	tokens := []int32{}
	if *request.Prompt != "" {
		tokens = s.encode(*request.Prompt)
	}
	writeJSON(w, http.StatusOK, struct {
		Tokens []int32 `json:"tokens"`
		Count  int     `json:"count"`
		Most   int     `json:"max_model_len"`
	}{tokens, len(tokens), s.model.Config.Seq})
	return nil
}

// detokenize answers /detokenize.
func (s *Server) detokenize(w http.ResponseWriter, _ *http.Request, body []byte) *apiError {
	var request struct {
		Model  *string  `json:"model"`
		Tokens tokenIDs `json:"tokens"`
	}
	if err := decode(body, &request); err != nil {
		return err
	}
	if err := s.named(request.Model); err != nil {
		return err
	}
	if request.Tokens == nil {
		return invalid("tokens", "a list of token ids, which is missing")
	}
	tokens, err := s.tokens("tokens", prompt{tokens: request.Tokens})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]string{"prompt": s.model.Text(tokens)})
	return nil
}
