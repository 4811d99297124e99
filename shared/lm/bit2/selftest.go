package bit2

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"

	"bitnet1/shared/lm/model"
)

const selfTestSection = "selftest"

// TestedTokens is how many tokens the self-test of a model of configuration c has.
func TestedTokens(c model.Config) int { return min(64, c.Seq) }

// SelfTest is what a model computes for a few tokens. A program that reads packed models may compute the same, and
// compare.
type SelfTest struct {
	Tokens []int32   `json:"tokens"` // one sequence
	Best   []int32   `json:"best"`   // after each token, the next that is most probable; of equal ones the first
	Logits []float32 `json:"logits"` // of these
}

// NewSelfTest computes the self-test of m, which computes one sequence at once: of TestedTokens. Which tokens does not
// matter; they are the same for models of one vocabulary.
func NewSelfTest(m *model.Model, settings model.Settings) (*SelfTest, error) {
	c, documents := m.Config(), m.Options().Documents
	tokens := make([]int32, m.Options().Seq)
	random := rand.New(rand.NewPCG(2, 0))
	for i := range tokens {
		tokens[i] = int32(random.IntN(c.Vocab))
	}
	if documents.Separate {
		tokens[len(tokens)/2] = documents.EndOfText
	}
	return selfTestOf(m, settings, tokens)
}

func selfTestOf(m *model.Model, settings model.Settings, tokens []int32) (*SelfTest, error) {
	logits, err := m.Logits(tokens, 0, len(tokens), settings)
	if err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	if i := model.FirstNotFinite(logits); i >= 0 {
		return nil, fmt.Errorf("self-test: a logit of token %d is %v: the model has diverged", i/m.Config().Vocab, logits[i])
	}
	t := &SelfTest{Tokens: tokens}
	for row := range slices.Chunk(logits, m.Config().Vocab) {
		best := slices.Index(row, slices.Max(row))
		t.Best = append(t.Best, int32(best))
		t.Logits = append(t.Logits, row[best])
	}
	return t, nil
}

// Check computes the same with m, which computes one sequence of len(t.Tokens) at once. It returns an error unless all
// is equal to the last bit, as it is on a device of the kind that computed the test.
func (t *SelfTest) Check(m *model.Model, settings model.Settings) error {
	got, err := selfTestOf(m, settings, t.Tokens)
	if err != nil {
		return err
	}
	for i := range t.Tokens {
		if err := t.check(i, got.Best[i], got.Logits[i]); err != nil {
			return err
		}
	}
	return nil
}

// CheckLogits returns an error unless logits, those after token i, are what the test says, to the last bit.
func (t *SelfTest) CheckLogits(i int, logits []float32) error {
	best := slices.Index(logits, slices.Max(logits))
	if best < 0 {
		return fmt.Errorf("self-test: after %d tokens a logit is NaN", i+1)
	}
	return t.check(i, int32(best), logits[best])
}

func (t *SelfTest) check(i int, best int32, logit float32) error {
	if best == t.Best[i] && logit == t.Logits[i] {
		return nil
	}
	return fmt.Errorf("self-test: after %d tokens the model finds token %d with logit %v, and was packed with token "+
		"%d and logit %v", i+1, best, logit, t.Best[i], t.Logits[i])
}

// SelfTest returns the self-test of the file; nil: it has none.
func (f *File) SelfTest() (*SelfTest, error) {
	text, err := f.section(selfTestSection)
	if err != nil {
		return nil, f.error(err)
	}
	if text == nil {
		return nil, nil
	}
	t := new(SelfTest)
	if err := json.Unmarshal(text, t); err != nil {
		return nil, f.error(fmt.Errorf("self-test: %w", err))
	}
	if err := t.fits(f.Config); err != nil {
		return nil, f.error(fmt.Errorf("self-test: %w", err))
	}
	return t, nil
}

// fits checks that a model of configuration c can compute the test.
func (t *SelfTest) fits(c model.Config) error {
	n := len(t.Tokens)
	if n < 1 || n > c.Seq || len(t.Best) != n || len(t.Logits) != n {
		return fmt.Errorf("%d tokens, %d best ones and %d logits: want equally many, 1 to %d", n, len(t.Best), len(t.Logits),
			c.Seq)
	}
	for _, token := range slices.Concat(t.Tokens, t.Best) {
		if token < 0 || int(token) >= c.Vocab {
			return fmt.Errorf("token %d is none of the vocabulary of %d", token, c.Vocab)
		}
	}
	return nil
}
