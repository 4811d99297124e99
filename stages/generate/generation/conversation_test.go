package generation

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/data/documents"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
)

// trained packs a model that has read one document again and again.
func trained(t *testing.T, document string) (path string) {
	t.Helper()
	c := measuretest.Config(64)
	c.D, c.FF, c.Heads, c.StreamBits = 64, 64, 2, 16
	m, err := model.New(c, cpu.New(cpu.Options{}), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(3); err != nil {
		t.Fatal(err)
	}
	text := append([]int32{256}, make([]int32, c.Seq)...)
	for i := range c.Seq {
		text[i+1] = 256
		if i < len(document) {
			text[i+1] = int32(document[i])
		}
	}
	const steps = 250
	for step := range steps {
		if err := m.Step(text[:c.Seq], text[1:], model.Update{
			Settings:     model.Settings{Gamma: 0.5, Seed: 42, Step: uint64(step)},
			LearningRate: 1e-2 * float64(steps-step) / steps, Beta1: 0.9, Beta2: 0.95, MaxNorm: 1,
		}); err != nil {
			t.Fatal(err)
		}
	}
	parameters, err := m.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	p := about
	p.Gamma = 0.5
	path = filepath.Join(t.TempDir(), "model.bit2")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := bit2.Write(f, c, p, model.Each(parameters), nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// A model that was trained on a conversation answers as it has learned, and says that it knows conversations.
func TestConversation(t *testing.T) {
	m, g := open(t, trained(t, "user: Hello!\nassistant: Why, hi.\nuser: Ok"))
	template := documents.Template{Between: "\n"}
	prompt, stop := m.Conversation(template, []documents.Turn{{Role: User, Text: "Hello!"}})
	if text := m.Text(prompt); text != "<|endoftext|>user: Hello!\nassistant:" {
		t.Errorf("prompt %q", text)
	}
	if r := write(t, g, prompt, Options{Stop: stop}); r.Text != " Why, hi." || r.Finish != Stop {
		t.Errorf("answer %+v", r)
	}
	for _, c := range []struct {
		what     string
		template documents.Template
		want     bool
	}{
		{"its own", template, true},
		{"another", documents.Template{Turn: "<{role}>{text}"}, false},
		{"one without roles", documents.Template{Turn: "{text}"}, false},
		{"one that the context has no room for", documents.Template{Turn: strings.Repeat("x", 99) + "{role}: {text}"}, false},
	} {
		if knows, err := m.Converses(c.template); knows != c.want || err != nil {
			t.Errorf("%s template: knows conversations: %v, %v", c.what, knows, err)
		}
	}
	prose, _ := open(t, trained(t, "Hello! A watched pot never boils.\nas many hands make light work"))
	if knows, err := prose.Converses(template); knows || err != nil {
		t.Errorf("a model of prose knows conversations: %v, %v", knows, err)
	}
}

// An answer ends where its turn does, in the words of the template.
func TestStopsOfTemplates(t *testing.T) {
	m, _ := open(t, measuretest.Packed(t, measuretest.Checkpoint(t, measuretest.Config(16), about)))
	for _, c := range []struct {
		documents.Template
		prompt string
		stop   []string
	}{
		{documents.Template{}, "system: S\n\nuser: U\n\nassistant:",
			[]string{"\n\nuser:", "\n\nassistant:", "\n\nsystem:"}},
		{documents.Template{Turn: "<{role}>\n{text}</{role}>\n"},
			"<system>\nS</system>\n<user>\nU</user>\n<assistant>\n", []string{"</assistant>\n"}},
		{documents.Template{Turn: "{text}", Between: " | "}, "S | U |", []string{" |"}},
		{documents.Template{Turn: "{text}"}, "SU", nil},
	} {
		prompt, stop := m.Conversation(c.Template, []documents.Turn{{Role: "system", Text: "S"}, {Role: User, Text: "U"}})
		if got := strings.TrimPrefix(m.Text(prompt), "<|endoftext|>"); got != c.prompt || !slices.Equal(stop, c.stop) {
			t.Errorf("%+v: prompt %q, stop %q", c.Template, got, stop)
		}
	}
	if prompt, _ := m.Conversation(documents.Template{Turn: "{text}"}, nil); !slices.Equal(prompt, []int32{256}) {
		t.Errorf("an empty prompt is %v, want the end of text alone", prompt)
	}
}
