package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"bitnet1/shared/digest"
)

// FilePrefix begins the names of tokenizers that come from files. The first digits of the file's digest follow.
const FilePrefix = "bpe-"

// FileName is the name of the tokenizer that the tokenizer.json of that digest describes.
func FileName(digest string) string { return FilePrefix + digest[:12] }

// Open returns the tokenizer that files call name. file is the tokenizer.json that they carry; nil: the tokenizer is
// built in.
func Open(name string, file []byte) (Tokenizer, error) {
	if file == nil {
		return New(name)
	}
	if is := FileName(digest.Bytes(file)); is != name {
		return nil, fmt.Errorf("the tokenizer is %s, and the tokenizer.json is that of %s: one of the two was replaced",
			name, is)
	}
	return Parse(file)
}

// File is the tokenizer.json that t was made from; nil: t is built in.
func File(t Tokenizer) []byte {
	if t, ok := t.(*imported); ok {
		return t.file
	}
	return nil
}

// Parse makes the tokenizer that a tokenizer.json of Hugging Face's package tokenizers describes. It gives texts that
// are UTF-8 the same tokens as that package, called with encode_special_tokens and without add_special_tokens. A file
// that describes anything other than byte-level BPE, of the kinds in docs/tokenizer.md, is refused.
func Parse(file []byte) (Tokenizer, error) {
	f, err := decodeFile(file)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	t := &imported{file: file}
	if t.bpe, err = f.build(); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	t.name = FileName(digest.Bytes(file))
	t.nfc = f.nfc
	var raw, normalized []addedToken
	for _, a := range f.AddedTokens {
		if a.Normalized {
			if f.nfc {
				a.Content = string(appendNFC(nil, []byte(a.Content)))
			}
			normalized = append(normalized, a)
		} else {
			raw = append(raw, a)
		}
	}
	t.raw, t.normalized = newAddedTokens(raw), newAddedTokens(normalized)
	return t, nil
}

// jsonFile is a tokenizer.json. What is left out of a model is not there, or does nothing.
type jsonFile struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"` // of single calls, as padding is
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    *jsonStep       `json:"normalizer"`
	PreTokenizer  *jsonStep       `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"` // adds special tokens, which documents here do without
	Decoder       *jsonStep       `json:"decoder"`
	Model         jsonModel       `json:"model"`

	nfc   bool
	split splitter
	later []classRange
}

type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

type jsonModel struct {
	Type                    *string           `json:"type"`
	Dropout                 *float64          `json:"dropout"`
	UnkToken                *string           `json:"unk_token"` // all bytes are tokens, so that none is unknown
	ContinuingSubwordPrefix *string           `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string           `json:"end_of_word_suffix"`
	FuseUnk                 bool              `json:"fuse_unk"`
	ByteFallback            bool              `json:"byte_fallback"`
	IgnoreMerges            bool              `json:"ignore_merges"`
	Vocab                   map[string]int64  `json:"vocab"`
	Merges                  []json.RawMessage `json:"merges"`
}

// jsonStep is a normalizer, a pre-tokenizer or a decoder.
type jsonStep struct {
	Type string `json:"type"`

	PreTokenizers []*jsonStep `json:"pretokenizers"` // of type Sequence, as the next two
	Normalizers   []*jsonStep `json:"normalizers"`
	Decoders      []*jsonStep `json:"decoders"`

	AddPrefixSpace   *bool `json:"add_prefix_space"` // of type ByteLevel, as the next two
	TrimOffsets      *bool `json:"trim_offsets"`
	UseRegex         *bool `json:"use_regex"`
	IndividualDigits *bool `json:"individual_digits"` // of type Digits

	Pattern  *struct{ Regex, String *string } `json:"pattern"` // of type Split, as the next two
	Behavior string                           `json:"behavior"`
	Invert   bool                             `json:"invert"`
}

// steps are the members of a sequence, or s itself.
func (s *jsonStep) steps() []*jsonStep {
	switch {
	case s == nil:
		return nil
	case s.Type == "Sequence":
		return slices.Concat(s.PreTokenizers, s.Normalizers, s.Decoders)
	}
	return []*jsonStep{s}
}

// decodeFile reads a file, and refuses what this program does not do.
func decodeFile(file []byte) (*jsonFile, error) {
	f := new(jsonFile)
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	switch err := d.Decode(f); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("the file ends early: it is truncated, fetch it again")
	case err != nil:
		return nil, cmp.Or(otherKind(file), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return f, f.check()
}

// otherKind says which other kind of tokenizer a file describes that is no jsonFile: its model and its steps may have
// fields of their own. It is nil where nothing but a field is unknown.
func otherKind(file []byte) error {
	f := new(jsonFile)
	var wrongType *json.UnmarshalTypeError // all fields of the right types are there all the same
	if err := json.Unmarshal(file, f); err != nil && !errors.As(err, &wrongType) {
		return err
	}
	return f.check()
}

// check refuses what this program does not do. The model and the pre-tokenizer come first: they tell the kind.
func (f *jsonFile) check() error {
	for _, check := range []func() error{f.checkModel, f.checkPreTokenizer, f.checkNormalizer, f.checkDecoder,
		f.checkAdded} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (f *jsonFile) checkModel() error {
	m := f.Model
	affix := func(s *string) bool { return s != nil && *s != "" }
	switch {
	case m.Type != nil && *m.Type != "BPE":
		return fmt.Errorf("the model is %s: only byte-level BPE is read here", *m.Type)
	case len(m.Vocab) == 0:
		return errors.New("the model has no vocabulary")
	case m.Dropout != nil && *m.Dropout != 0:
		return fmt.Errorf("the model drops merges at random (dropout %v): set dropout to null", *m.Dropout)
	case affix(m.ContinuingSubwordPrefix), affix(m.EndOfWordSuffix):
		return errors.New("the model marks the parts of words (continuing_subword_prefix, end_of_word_suffix): that is not " +
			"byte-level BPE")
	}
	return nil
}

func (f *jsonFile) checkNormalizer() error {
	for _, s := range f.Normalizer.steps() {
		if s.Type != "NFC" {
			return fmt.Errorf("the normalizer %s changes texts: only NFC, or none, is read here", s.Type)
		}
		f.nfc = true
	}
	return nil
}

// splitters match the patterns.
var splitters = map[string]splitter{
	"gpt2":   (*classes).splitGPT2,
	"cl100k": (*classes).splitCL100K, // Llama 3's, too
	"o200k":  (*classes).splitO200K,
	"qwen":   (*classes).splitQwen,
	"tekken": (*classes).splitTekken,
}

// checkPreTokenizer finds the splitter: of ByteLevel alone, of Split and ByteLevel, or of Digits and ByteLevel.
func (f *jsonFile) checkPreTokenizer() error {
	steps := f.PreTokenizer.steps()
	if len(steps) == 0 || steps[len(steps)-1].Type != "ByteLevel" {
		return errors.New("the pre-tokenizer does not end with ByteLevel: only byte-level BPE is read here")
	}
	byteLevel, before := steps[len(steps)-1], steps[:len(steps)-1]
	if p := byteLevel.AddPrefixSpace; p == nil || *p {
		return errors.New("the pre-tokenizer puts a space before texts, which decoding would not take away: set " +
			"add_prefix_space to false")
	}
	regex := byteLevel.UseRegex == nil || *byteLevel.UseRegex
	f.later = unicode16
	switch {
	case len(before) == 0 && regex:
		f.split = (*classes).splitGPT2
		return nil
	case len(before) == 0:
		f.split = (*classes).splitNothing
		return nil
	case len(before) == 1 && before[0].Type == "Split" && !regex:
		return f.checkSplit(before[0])
	case len(before) == 1 && before[0].Type == "Digits" && regex:
		if each := before[0].IndividualDigits; each != nil && *each {
			f.split, f.later = (*classes).splitDigits, slices.Concat(unicode16, digits17)
			slices.SortFunc(f.later, func(a, b classRange) int { return int(a.first - b.first) })
			return nil
		}
		return errors.New("the pre-tokenizer Digits keeps digits together: only individual_digits is read here")
	}
	var names []string
	for _, s := range steps {
		names = append(names, s.Type)
	}
	return fmt.Errorf("the pre-tokenizer is %s: only ByteLevel, Split with ByteLevel (use_regex false), or Digits with "+
		"ByteLevel is read here", strings.Join(names, ", "))
}

func (f *jsonFile) checkSplit(s *jsonStep) error {
	// The expressions below match all of a text, so that nothing is between two matches.
	if !(s.Behavior == "Isolated" && !s.Invert || s.Behavior == "Removed" && s.Invert) {
		return fmt.Errorf("the pre-tokenizer Split has behavior %s, invert %v: only Isolated without invert is read here",
			s.Behavior, s.Invert)
	}
	if s.Pattern == nil || s.Pattern.Regex == nil {
		return errors.New("the pre-tokenizer Split has no regular expression")
	}
	for name, regex := range patterns {
		if regex == *s.Pattern.Regex {
			f.split = splitters[name]
			return nil
		}
	}
	return fmt.Errorf("the regular expression of the pre-tokenizer Split is not among those of GPT-2, GPT-4, GPT-4o, "+
		"Llama 3, Qwen and Tekken: %s", *s.Pattern.Regex)
}

func (f *jsonFile) checkDecoder() error {
	for _, s := range f.Decoder.steps() {
		if s.Type != "ByteLevel" {
			return fmt.Errorf("the decoder is %s: only ByteLevel is read here", s.Type)
		}
	}
	return nil
}

// checkAdded refuses added tokens that are not what they seem.
func (f *jsonFile) checkAdded() error {
	next := int64(len(f.Model.Vocab)) // the id that the package tokenizers gives to the next new token
	seen := map[string]bool{}
	for _, a := range f.AddedTokens {
		known, there := f.Model.Vocab[a.Content]
		if !there {
			known = next
			next++
		}
		switch {
		case a.Content == "" || seen[a.Content]:
			return fmt.Errorf("added token %q is empty, or is there twice", a.Content)
		case a.ID != known:
			return fmt.Errorf("added token %q has id %d, and the package tokenizers would give it %d", a.Content, a.ID, known)
		case !a.Special && (a.SingleWord || a.LStrip || a.RStrip):
			return fmt.Errorf("added token %q is found by what is around it (single_word, lstrip, rstrip), which is not read "+
				"here: set these to false, or make the token special", a.Content)
		}
		seen[a.Content] = true
	}
	return nil
}

// ends are the names of the token that ends a document, in the order in which they are looked for.
var ends = []string{endOfTextBytes, "<|end_of_text|>", "</s>", "<eos>", "<|end▁of▁sentence|>", "<｜end▁of▁sentence｜>",
	"<|eos|>", "[EOS]"}

// endOfText finds the token that ends documents.
func (f *jsonFile) endOfText() (addedToken, error) {
	var special []addedToken
	var names []string
	for _, a := range f.AddedTokens {
		if a.Special {
			special, names = append(special, a), append(names, a.Content)
		}
	}
	for _, name := range ends {
		if i := slices.Index(names, name); i >= 0 {
			return special[i], nil
		}
	}
	if len(special) == 1 {
		return special[0], nil
	}
	return addedToken{}, fmt.Errorf("none of its special tokens (%s) is known to end a document: name one of them %s in "+
		"added_tokens", cmp.Or(strings.Join(names, " "), "there are none"), endOfTextBytes)
}

// maxID bounds ids, because tables have a place for each.
const maxID = 1 << 24

// byID lists the bytes of all tokens by their ids. No token has an id whose bytes are nil.
func (f *jsonFile) byID() ([][]byte, error) {
	all := make([][]byte, len(f.Model.Vocab)+len(f.AddedTokens))
	set := func(id int64, text []byte) error {
		switch {
		case id < 0 || id > maxID:
			return fmt.Errorf("token %q has id %d: ids go from 0 to %d", text, id, maxID)
		case id >= int64(len(all)):
			all = append(all, make([][]byte, id+1-int64(len(all)))...)
		}
		if all[id] != nil && !bytes.Equal(all[id], text) {
			return fmt.Errorf("tokens %q and %q have the same id %d", all[id], text, id)
		}
		all[id] = text
		return nil
	}
	added := map[string]bool{}
	for _, a := range f.AddedTokens {
		added[a.Content] = true
		if err := set(a.ID, []byte(a.Content)); err != nil {
			return nil, err
		}
	}
	for _, token := range slices.Sorted(maps.Keys(f.Model.Vocab)) { // sorted, so that errors are the same every time
		text, ok := fromVisible(token)
		if !ok || added[token] {
			text = []byte(token)
		}
		if err := set(f.Model.Vocab[token], text); err != nil {
			return nil, err
		}
	}
	for len(all) > 0 && all[len(all)-1] == nil {
		all = all[:len(all)-1]
	}
	return all, nil
}

// build makes the encoder of texts without added tokens.
func (f *jsonFile) build() (*bpe, error) {
	end, err := f.endOfText()
	if err != nil {
		return nil, err
	}
	all, err := f.byID()
	if err != nil {
		return nil, err
	}
	b := &bpe{vocab: len(all), endOfText: uint32(end.ID), split: f.split, classes: newClasses(f.later),
		tokens: new(vocabulary), pieces: newPieceTable(len(f.Model.Vocab))}
	b.classes.longS = true
	for _, token := range all {
		if b.tokens.add(token...); len(b.tokens.bytes) > math.MaxInt32 {
			return nil, errors.New("its tokens have more than 2 GiB")
		}
	}
	if b.merges, b.ids, err = f.merges(); err != nil {
		return nil, err
	}
	for rank, id := range b.ids {
		if id == b.endOfText {
			return nil, fmt.Errorf("its end of text %q is also the token of ordinary text", end.Content)
		}
		b.pieces.add(b.merges.vocabulary.token(uint32(rank)), id)
	}
	if f.Model.IgnoreMerges {
		f.addUnmade(b)
	}
	if ascends(b.ids) {
		b.ids = nil
	}
	b.encoders.New = func() any { return new(encoder) }
	return b, nil
}

// ascends reports whether each rank is its own id.
func ascends(ids []uint32) bool {
	for rank, id := range ids {
		if id != uint32(rank) {
			return false
		}
	}
	return true
}

// addUnmade adds the tokens that merging does not make. Special ones are no pieces of ordinary text.
func (f *jsonFile) addUnmade(b *bpe) {
	special := map[string]bool{}
	for _, a := range f.AddedTokens {
		special[a.Content] = a.Special
	}
	for token, id := range f.Model.Vocab {
		if text, ok := fromVisible(token); ok && !special[token] && b.pieces.add(text, uint32(id)) && len(text) == 2 {
			b.noPairs = true
		}
	}
}
