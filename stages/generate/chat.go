package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func chatCommand() *cli.Command {
	return &cli.Command{Name: "chat", Usage: "talk to a packed model in the terminal",
		Action: func(*cli.Context) error { return errors.New("to come") }}
}
