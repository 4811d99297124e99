package stage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

// textWritten is an event that the stage answers: another stage has written a text.
type textWritten struct {
	Text artifact.Ref `msgpack:"text"`
}

func (textWritten) Kind() string       { return "text.written" }
func (e textWritten) Inputs() []string { return []string{e.Text.Digest} }

// wordsCounted is an event that the stage announces.
type wordsCounted struct {
	Words  int          `msgpack:"words"`
	Report artifact.Ref `msgpack:"report"`
}

func (wordsCounted) Kind() string       { return "words.counted" }
func (e wordsCounted) Inputs() []string { return []string{e.Report.Digest} }

type params struct {
	Least int `json:"least" usage:"letters of the shortest words that count"`
}

// count answers one event: it reads the text, writes a report and announces it.
func count(ctx context.Context, job *stage.Job[params], in textWritten) error {
	path, err := job.Path(in.Text)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		return stage.Permanent(errors.New("the text is empty")) // trying again cannot help
	}
	words := 0
	for word := range strings.FieldsSeq(string(text)) {
		if len(word) >= job.Params.Least {
			words++
		}
	}
	report, err := job.WriteJSON("report", in.Text.Name+".words.json", map[string]int{"words": words})
	if err != nil {
		return err
	}
	return job.Emit(ctx, wordsCounted{Words: words, Report: report})
}

// files makes events of the files that the user names.
func files(in *stage.Files) (all []textWritten, err error) {
	for _, path := range in.In {
		text, err := in.Add("text", "text/plain", path)
		if err != nil {
			return nil, err
		}
		all = append(all, textWritten{Text: text})
	}
	return all, nil
}

// A whole stage: count is its work, and Main makes a program of it. Here the program works on a file; the same program
// answers events with "count serve".
func Example() {
	spec := stage.Spec[params, textWritten]{
		Name: "count", About: "count the words of texts", Example: "count run --in poem.txt --out counted",
		Version: "1", Defaults: params{Least: 1}, Work: count, Files: files, Emits: []event.Body{wordsCounted{}},
		Results: []results.Result{{Kind: "words.counted", Headline: "{words} words"}},
	}

	poem, remove := poem()
	defer remove()
	// os.Args in a program of your own.
	args := []string{"count", "run", "--log-level", "error", "--in", poem, "--out", "counted", "--least", "2"}
	fmt.Println("status", stage.Main(spec, args))
	// Output:
	// 4 words
	//   counted/poem.txt.words.json
	// status 0
}

// poem is a file in an empty folder, which the example works in.
func poem() (name string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err == nil {
		err = os.Chdir(dir)
	}
	if err == nil {
		err = os.WriteFile("poem.txt", []byte("the rose is a rose"), 0o644)
	}
	if err != nil {
		panic(err)
	}
	return "poem.txt", func() { os.RemoveAll(dir) }
}
