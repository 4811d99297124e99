package stage

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/results"
)

// Description is what `<stage> describe` prints: enough for a launcher to check a pipeline file and for a reference
// page.
type Description struct {
	Name       string           `json:"name"`
	About      string           `json:"about"`
	Example    string           `json:"example"` // a command line
	Kind       string           `json:"kind"`    // of the events it answers
	Emits      []string         `json:"emits"`   // kinds of the events it announces
	Results    []results.Result `json:"results"` // what people are shown of them
	Parameters []param.Field    `json:"parameters"`

	// OnDataset says that the stage takes files and a dataset beside them: `run --in FILE --dataset MANIFEST --out DIR`.
	OnDataset bool `json:"on_dataset,omitempty"`

	// ChosenBy is the flag that chooses among the events of a run: `run --run RUN --checkpoint best`.
	ChosenBy string `json:"chosen_by,omitempty"`
}

// Declaration is what the stage says of its results.
func (d Description) Declaration() results.Declaration {
	return results.Declaration{Stage: d.Name, Answers: d.Kind, Results: d.Results}
}

// maxSection bounds a stage's parameters, in bytes.
const maxSection = 1 << 20

func describeCommand[P any, E event.Body](s Spec[P, E]) *cli.Command {
	return &cli.Command{
		Name: "describe", Usage: "print what the stage takes and gives, as JSON",
		Description: "With --check it reads parameters (a JSON object) from standard input instead and says what is wrong " +
			"with them.\n\nExample:\n   " + s.Name + " describe",
		Flags: append(s.deviceFlags(), &cli.BoolFlag{Name: "check", Usage: "check parameters read from standard input"}),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Bool("check") {
				section, err := io.ReadAll(io.LimitReader(os.Stdin, maxSection+1))
				if err != nil {
					return err
				}
				if len(section) > maxSection {
					return fmt.Errorf("stage %s: parameters of more than %d bytes", s.Name, maxSection)
				}
				params, err := resolve(s, section, nil)
				if err != nil {
					return err
				}
				return s.checkHost(c, params)
			}
			d := Description{
				Name: s.Name, About: s.About, Kind: s.kind(), Example: s.Example,
				Emits: []string{}, Results: append([]results.Result{}, s.Results...),
				Parameters: append([]param.Field{}, param.Fields(s.Defaults)...),
				OnDataset:  s.Files != nil && s.OnDataset != nil, ChosenBy: strings.Join(s.Choice.flags(), ""),
			}
			for _, body := range s.Emits {
				d.Emits = append(d.Emits, body.Kind())
			}
			b, err := json.MarshalIndent(d, "", "  ")
			if err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, string(b))
			return nil
		},
	}
}
