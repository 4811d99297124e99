package main

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
)

// Values of the flag view that are no addresses: one asks for a page at the usual address, the other for none.
const (
	usualView = "true"
	noView    = "false"
)

var viewWords = []string{usualView, noView}

// viewStart is how long the program may take to say where its page is.
const viewStart = 10 * time.Second

func viewFlag() cli.Flag {
	return &cli.StringFlag{Name: "view", EnvVars: []string{"BITNET1_VIEW"}, Value: usualView,
		Usage: "show the run in a browser while it goes on: true, false, or the `HOST:PORT` to serve the page on"}
}

// startView starts the program that serves a page about the run, and says where the page is. The page is a convenience:
// without it the run goes on. The program ends when its standard input does, even if the launcher is killed; stop ends
// it.
func (l *launcher) startView(on string, events bus.Address) (stop func()) {
	stop = func() {}
	path := program("view")
	if on == noView || !hasFile(path) && on == usualView {
		return stop
	}
	args := []string{"--data", l.store.Dir()}
	if on != usualView {
		args = append(args, "--addr", on)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(append(bus.WithoutAddress(os.Environ()), events.Environ()...), command.EnvLauncher+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches only the launcher
	var said strings.Builder
	cmd.Stderr = &said
	alive, err := cmd.StdinPipe()
	if err == nil {
		out, failed := cmd.StdoutPipe()
		if err = errors.Join(failed, cmd.Start()); err == nil {
			slow := time.AfterFunc(viewStart, func() { _ = cmd.Process.Kill() })
			address, _ := bufio.NewReader(out).ReadString('\n')
			slow.Stop()
			if address != "" {
				l.screen.view(strings.TrimSpace(address))
				return func() { alive.Close(); _ = cmd.Wait() }
			}
			err = cmd.Wait()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		said.WriteString("there is no " + path + ": task build builds it")
	}
	l.screen.warn("launcher", "the run cannot be shown in a browser: "+strings.TrimSpace(said.String()))
	return stop
}
