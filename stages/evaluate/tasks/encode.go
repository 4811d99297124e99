package tasks

import (
	"errors"
	"fmt"
	"strings"

	"bitnet1/shared/data/tokenizer"
)

// Tokens are a request as a model reads it: the log-likelihood is that of the last Continuation tokens, each predicted
// from all before it.
type Tokens struct {
	IDs          []int32
	Continuation int
	Truncated    bool // earlier tokens of the context were left out
}

// ErrTooLong is the error of an answer that has more tokens than the model reads at once.
var ErrTooLong = errors.New("the answer has more tokens than the model reads")

// Encode makes tokens of a request as the harness does it (TemplateLM.loglikelihood of lm_eval/api/model.py). White
// space at the end of the context goes to the continuation. Context and continuation are encoded together, and what
// the context alone does not have is the continuation. An empty context is an end of text. Of more than most+1 tokens
// the first are left out: a model reads all but the last one. Where the harness would fail, the error is ErrTooLong.
func Encode(text tokenizer.Tokenizer, r Request, most int) (Tokens, error) {
	context := strings.TrimRightFunc(r.Context, isSpace)
	continuation := r.Context[len(context):] + r.Continuation
	end := int32(text.EndOfText())
	var t Tokens
	if r.Context == "" {
		t.IDs = append(t.IDs, end)
	}
	t.IDs = ids(t.IDs, text.Encode(nil, []byte(context+continuation)))
	known := 1
	if r.Context != "" {
		known = len(text.Encode(nil, []byte(context)))
	}
	if t.Continuation = len(t.IDs) - known; t.Continuation < 1 {
		return t, fmt.Errorf("the answer %q has no tokens of its own", r.Continuation)
	}
	if known == 0 {
		return t, errors.New("the context is white space alone: nothing is there to predict its answer from")
	}
	if t.Continuation > most {
		return t, ErrTooLong
	}
	if more := len(t.IDs) - most - 1; more > 0 {
		t.IDs, t.Truncated = t.IDs[more:], true
	}
	return t, nil
}

func ids(dst []int32, tokens []uint32) []int32 {
	for _, id := range tokens {
		dst = append(dst, int32(id))
	}
	return dst
}
