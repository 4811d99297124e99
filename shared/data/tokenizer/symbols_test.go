package tokenizer

import "testing"

func TestSymbols(t *testing.T) {
	s, err := New("symbols-10")
	if err != nil {
		t.Fatal(err)
	}
	if s.Name() != "symbols-10" || s.Vocab() != 11 || s.EndOfText() != 10 {
		t.Errorf("%s has %d ids, end of text %d", s.Name(), s.Vocab(), s.EndOfText())
	}
	const text = "!*#$%&'()\""
	if got := string(s.Decode(nil, s.Encode(nil, []byte(text)))); got != text {
		t.Errorf("%q came back as %q", text, got)
	}
	for _, id := range s.Encode(nil, []byte("any text\x00\xff whatever")) {
		if id >= s.EndOfText() {
			t.Errorf("id %d is no symbol", id)
		}
	}
	for _, name := range []string{"symbols-", "symbols-1", "symbols-95", "symbols-07", "symbols-x"} {
		if _, err := New(name); err == nil {
			t.Errorf("%s is a tokenizer", name)
		}
	}
}
