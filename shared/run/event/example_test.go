package event_test

import (
	"fmt"

	"bitnet1/shared/run/event"
)

// textWritten is a kind of event of one's own.
type textWritten struct {
	Step int    `msgpack:"step"`
	Text string `msgpack:"text"`
}

func (textWritten) Kind() string       { return "text.written" }
func (e textWritten) Inputs() []string { return []string{e.Text} }

// An event is made of a body, travels as bytes on its subject, and is a typed body again where it is read.
func Example() {
	e, err := event.New("run-1", "write", "", event.Part{}, textWritten{Step: 3, Text: "a rose"})
	if err != nil {
		fmt.Println(err)
		return
	}
	bytes, err := e.Encode()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Subject())

	received, err := event.Decode(bytes)
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := event.Into[textWritten](received)
	fmt.Println(text.Step, text.Text, err)
	fmt.Println(received.ID == e.ID)
	// Output:
	// bitnet1.run-1.text.written
	// 3 a rose <nil>
	// true
}

// A reader that does not know a kind can still show its fields.
func ExamplePlain() {
	body, err := event.Marshal(textWritten{Step: 3, Text: "a rose"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fields, err := event.Plain(body)
	fmt.Println(fields["step"], fields["text"], err)
	// Output: 3 a rose <nil>
}

// Into refuses an event of another kind.
func ExampleInto() {
	e, err := event.New("run-1", "train", "", event.Part{}, event.CheckpointSaved{Step: 100})
	if err != nil {
		fmt.Println(err)
		return
	}
	saved, err := event.Into[event.CheckpointSaved](e)
	fmt.Println(saved.Step, err)
	_, err = event.Into[event.PackWritten](e)
	fmt.Println(err != nil)
	// Output:
	// 100 <nil>
	// true
}
