package command

import (
	"bytes"
	"io"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/terminal"
)

// PrintHelp prints help as package cli does, for the width of the terminal. Programs set it as cli.HelpPrinter.
func PrintHelp(out io.Writer, template string, data any) {
	var page bytes.Buffer
	cli.HelpPrinterCustom(&page, template, data, nil)
	_, _ = io.WriteString(out, fitHelp(page.String(), terminal.Width(out))) // as package cli, which drops errors too
}

// example is a command in a help page, which is copied as it is.
var example = regexp.MustCompile(`^ {6}\S+( \S+)*\n$`)

func fitHelp(page string, width int) string {
	var fitted strings.Builder
	for line := range strings.Lines(page) {
		if !example.MatchString(line) {
			line = terminal.Fit(line, width)
		}
		fitted.WriteString(line)
	}
	return fitted.String()
}
