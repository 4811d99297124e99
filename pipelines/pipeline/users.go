package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/authority"
	"bitnet1/pipelines/pipeline/pipelinefile"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
)

func usersCommand() *cli.Command {
	return &cli.Command{
		Name: "users", Usage: "write what a nats-server needs to let in the stages of pipeline files, and nobody else",
		ArgsUsage: "FILE…",
		Description: "Every stage gets a user with a key of its own, and may announce the events that it declares. Keys " +
			"that are there are kept.\n\nExample:\n" +
			"   pipeline users --out nats --host nats.example --run v76-300M pipelines/v76.yml",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Value: "nats", Usage: "`DIR`ectory of the files"},
			&cli.StringSliceFlag{Name: "run", Usage: "`RUN` that the stages work on, as a launcher starts them (default: they " +
				"serve every run)"},
			&cli.StringSliceFlag{Name: "host", Usage: "name or address of a `HOST` of a nats-server: it gets a new " +
				"certificate and a configuration; three or five hosts are a cluster"},
			&cli.StringFlag{Name: "stages-dir", Usage: "`DIR`ectory of the stages' programs (default: where this program is)"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return command.UsageError(errors.New("give pipeline files, after all flags: pipeline users [flags] FILE…"))
			}
			for _, run := range c.StringSlice("run") {
				if !event.ValidRun(run) {
					return command.Usagef("--run %s: not a run's id", run)
				}
			}
			for _, host := range c.StringSlice("host") {
				if net.ParseIP(host) == nil && !hostName.MatchString(host) || host == "ca" || host == "users" {
					return command.Usagef("--host %s: want a name or an IP address, which its files are called by", host)
				}
			}
			if n := len(c.StringSlice("host")); n > 0 && n%2 == 0 {
				return command.Usagef("--host for %d hosts: a cluster of %d goes on without %d, as one of %d does; "+
					"give one host, or three or five", n, n, (n-1)/2, n-1)
			}
			return writeUsers(c)
		},
	}
}

// hostName matches the names of hosts, which are names of files as well.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

func writeUsers(c *cli.Context) error {
	users, err := usersOf(c.Context, c)
	if err != nil {
		return err
	}
	dir := c.String("out")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	keys := map[string]string{}
	var names []string
	for _, u := range users {
		if keys[u.Name], err = bus.WriteKey(dir, u.Name); err != nil {
			return err
		}
		names = append(names, u.Name)
	}
	heading := "# Who may connect, and what for. Nothing here is secret. Written by pipeline users.\n"
	path := filepath.Join(dir, "users.conf")
	if err := artifact.WriteFile(path, []byte(heading+bus.Configuration(users, keys))); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s: include it in the server's configuration; reload a server that has it\n", path)
	fmt.Fprintf(c.App.Writer, "%s: keys of %s; a program is told its own by NATS_NKEY\n", filepath.Join(dir, "*.nk"),
		strings.Join(names, ", "))
	return writeHosts(c, dir)
}

// usersOf are the users for the stages of all pipeline files, and for those who launch and watch them.
func usersOf(ctx context.Context, c *cli.Context) ([]bus.User, error) {
	users := []bus.User{bus.Launcher(), bus.Viewer()}
	known := map[string]bus.User{}
	for _, path := range c.Args().Slice() {
		file, err := pipelinefile.Load(path)
		if err != nil {
			return nil, err
		}
		for _, name := range file.Stages() {
			s, err := describe(ctx, c, file, name)
			if err != nil {
				return nil, err
			}
			u := bus.StageUser(s.Name, s.Kind, s.Emits, c.StringSlice("run")...)
			before, again := known[name]
			switch {
			case !again:
				known[name] = u
				users = append(users, u)
			case !reflect.DeepEqual(before, u):
				return nil, fmt.Errorf("stage %s is another one in %s than in the files before: give one of the two another name",
					name, path)
			}
		}
	}
	return users, nil
}

// writeHosts writes what the hosts of nats-servers need beside the users.
func writeHosts(c *cli.Context, dir string) error {
	hosts := c.StringSlice("host")
	if len(hosts) == 0 {
		return nil
	}
	ca, err := authority.Open(dir)
	if err != nil {
		return err
	}
	for _, host := range hosts {
		if err := ca.Issue(host); err != nil {
			return err
		}
		path := filepath.Join(dir, host+".conf")
		if err := artifact.WriteFile(path, []byte(hostConfiguration(host, hosts))); err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "%s, %s.pem, %s.key: for %s, beside users.conf\n", path, host, host, host)
	}
	fmt.Fprintf(c.App.Writer, "%s: for every client, by NATS_CA; keep ca.key where no server runs\n",
		filepath.Join(dir, "ca.pem"))
	return nil
}

// hostConfiguration is that of a server that is started in the folder of its files. Several hosts are a cluster.
func hostConfiguration(host string, hosts []string) string {
	configuration := fmt.Sprintf(`# Start it in this folder: nats-server -c %[1]s.conf
server_name: %[1]q
listen: "0.0.0.0:4222"
client_advertise: %[2]q
jetstream {
  store_dir: "store"
  sync_interval: always # an event that was acknowledged survives a power cut
}
tls {
  cert_file: "%[1]s.pem"
  key_file: "%[1]s.key"
  ca_file: "ca.pem"
}
include "users.conf"
`, host, net.JoinHostPort(host, "4222"))
	if len(hosts) == 1 {
		return configuration
	}
	var routes []string
	for _, other := range hosts {
		if other != host {
			routes = append(routes, strconv.Quote("nats-route://"+net.JoinHostPort(other, "6222")))
		}
	}
	return configuration + fmt.Sprintf(`
cluster {
  name: "bitnet1"
  listen: "0.0.0.0:6222"
  advertise: %[2]q
  routes: [%[3]s]
  tls { # both sides of a route show a certificate of the authority
    cert_file: "%[1]s.pem"
    key_file: "%[1]s.key"
    ca_file: "ca.pem"
    verify: true
  }
}
`, host, net.JoinHostPort(host, "6222"), strings.Join(routes, ", "))
}
