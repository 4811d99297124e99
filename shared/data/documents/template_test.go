package documents

import (
	"os"
	"path/filepath"
	"testing"
)

// A conversation is the text of a document with the same turns, and the text is made of its parts.
func TestConversation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "talk.jsonl")
	talk := `{"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "<think>Hm.</think> So."}]}`
	if err := os.WriteFile(path, []byte(talk), 0o644); err != nil {
		t.Fatal(err)
	}
	turns := []Turn{{"user", "Why?"}, {"assistant", "<think>Hm.</think> So."}}
	for _, template := range []Template{
		{}, {Between: "\n"}, {Turn: "<|{role}|>\n{text}<|end of {role}|>"}, {Turn: "{text}", Between: " / "},
		{StripThinking: true},
	} {
		d, err := Open(path, Options{Source: "talk", Template: template})
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		for document, err := range d.All() {
			if err != nil {
				t.Fatal(err)
			}
			want = string(document.Text)
		}
		d.Close()
		if got := template.Conversation(turns, ""); got != want {
			t.Errorf("%+v: conversation %q, document %q", template, got, want)
		}
		if template.StripThinking {
			continue
		}
		asked := template.Conversation(turns[:1], "assistant") + turns[1].Text + template.After("assistant", "")
		begun := template.Conversation(nil, "user") + turns[0].Text + template.After("user", "assistant") +
			turns[1].Text + template.After("assistant", "")
		if asked != want || begun != want {
			t.Errorf("%+v: %q and %q of parts, document %q", template, asked, begun, want)
		}
	}
}
