package main

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"bitnet1/shared/run/bus"
)

// member starts the nats-server of a host with the configuration that `pipeline users` has written in dir, on ports
// that are free here.
func member(t *testing.T, dir, host string, ports *strings.Replacer) *server.Server {
	t.Helper()
	path := filepath.Join(dir, host+".conf")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(ports.Replace(strings.ReplaceAll(string(text), "0.0.0.0:", host+":"))), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var options *server.Options
	t.Run("configuration of "+host, func(t *testing.T) {
		t.Chdir(dir)
		if options, err = server.ProcessConfigFile(path); err != nil {
			t.Fatal(err)
		}
	})
	if options == nil {
		t.FailNow()
	}
	options.StoreDir, options.NoSigs, options.NoLog = t.TempDir(), true, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// port is a port that is free on all addresses of this machine.
func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, p, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAClusterWithUsers starts three servers with the files of `pipeline users`, runs a pipeline there, and again
// without one of the servers. A server whose certificate is another authority's stays outside.
func TestAClusterWithUsers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("three hosts on one machine need addresses that Linux has: 127.0.0.2, 127.0.0.3")
	}
	w := newWorld(t)
	dir := t.TempDir()
	file, text := filepath.Join(dir, "prepared.yml"), filepath.Join(dir, "input.txt")
	for path, content := range map[string]string{
		text: "It was the worst of times.",
		file: "sources: [" + text + "]\nstages:\n  tokenize: {}\n  shard: {sequence_length: 64}\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, others := filepath.Join(dir, "nats"), filepath.Join(dir, "others")
	hosts := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}
	flags := func(out string, more ...string) []string {
		args := []string{"users", "--out", out, "--run", "r"}
		for _, host := range append(hosts, more...) {
			args = append(args, "--host", host)
		}
		return append(args, file)
	}
	w.must("pipeline", flags(keys)...)
	w.must("pipeline", flags(others, "127.0.0.4", "127.0.0.5")...)
	if o := w.run("pipeline", flags(keys, "127.0.0.4")...); o.status == 0 || !strings.Contains(o.stderr, "three or five") {
		t.Errorf("four hosts: status %d\n%s", o.status, o.stderr)
	}

	clients := port(t)
	ports := strings.NewReplacer(":4222", ":"+clients, ":6222", ":"+port(t))
	stranger := member(t, others, "127.0.0.4", ports)
	var servers []*server.Server
	var urls []string
	for _, host := range hosts {
		servers = append(servers, member(t, keys, host, ports))
		urls = append(urls, "tls://"+net.JoinHostPort(host, clients))
	}
	w.eventually("the servers choose a leader", func() bool { return servers[0].JetStreamIsCurrent() })
	w.env = []string{"NATS_URL=" + strings.Join(urls, ","), "NATS_CA=" + filepath.Join(keys, "ca.pem"),
		"NATS_NKEY=" + filepath.Join(keys, "launcher.nk")}
	run := []string{"run", "--preset", "nano", "--run", "r", file}
	w.must("pipeline", run...)
	for _, s := range servers {
		if !s.JetStreamIsStreamAssigned(server.DEFAULT_GLOBAL_ACCOUNT, bus.EventStream) {
			t.Errorf("server %s does not have the events", s.Name())
		}
	}
	if n := stranger.NumRoutes(); n != 0 {
		t.Errorf("a server of another authority has %d routes", n)
	}

	servers[0].Shutdown()
	servers[0].WaitForShutdown()
	if o := w.run("pipeline", run...); o.status != 0 || !strings.Contains(o.stderr+o.stdout, "nothing is left to do") {
		t.Errorf("with two of three servers: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}
