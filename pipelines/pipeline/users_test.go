package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// configured starts a nats-server with a configuration that `pipeline users` has written in dir for localhost.
func configured(t *testing.T, dir string) (url string) {
	t.Helper()
	var options *server.Options
	t.Run("configuration", func(t *testing.T) {
		t.Chdir(dir)
		var err error
		if options, err = server.ProcessConfigFile("localhost.conf"); err != nil {
			t.Fatal(err)
		}
	})
	if options == nil {
		t.FailNow()
	}
	options.Host, options.Port, options.StoreDir, options.NoSigs = "127.0.0.1", server.RANDOM_PORT, t.TempDir(), true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	_, port, _ := strings.Cut(s.Addr().String(), ":")
	return "nats://localhost:" + port
}

// TestStagesOnAServerWithUsers runs a pipeline on a server that knows its stages, over TLS, and tries the doors without
// a key, with another key, without the authority's certificate, and for another run.
func TestStagesOnAServerWithUsers(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	file, text := filepath.Join(dir, "prepared.yml"), filepath.Join(dir, "input.txt")
	for path, content := range map[string]string{
		text: "It was the best of times.",
		file: "sources: [" + text + "]\nstages:\n  tokenize: {}\n  shard: {sequence_length: 64}\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, others := filepath.Join(dir, "nats"), filepath.Join(dir, "others")
	w.must("pipeline", "users", "--out", keys, "--host", "localhost", "--run", "r", file)
	w.must("pipeline", "users", "--out", others, "--run", "r", file)
	url := configured(t, keys)

	address := func(key, ca string) []string {
		env := []string{"NATS_URL=" + url}
		if key != "" {
			env = append(env, "NATS_NKEY="+key)
		}
		if ca != "" {
			env = append(env, "NATS_CA="+ca)
		}
		return env
	}
	launcher, ca := filepath.Join(keys, "launcher.nk"), filepath.Join(keys, "ca.pem")
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"no key":                       {address("", ca), "refused the credentials"},
		"a key of another server":      {address(filepath.Join(others, "launcher.nk"), ca), "refused the credentials"},
		"a key that is none":           {address(ca, ca), "holds no seed"},
		"an authority that is unknown": {address(launcher, ""), "NATS_CA"},
		"a stage's key":                {address(filepath.Join(keys, "shard.nk"), ca), "does not let this user"},
	} {
		w.env = c.env
		if o := w.run("pipeline", "run", "--preset", "nano", "--run", "r", file); o.status == 0 ||
			!strings.Contains(o.stderr, c.want) {
			t.Errorf("with %s: status %d, want %q in:\n%s", name, o.status, c.want, o.stderr)
		}
	}
	w.env = address(launcher, ca)
	w.must("pipeline", "run", "--preset", "nano", "--run", "r", file)
	o := w.run("pipeline", "run", "--preset", "nano", "--run", "s", "--seed", "2", file)
	if o.status == 0 || !strings.Contains(o.stderr, "pipeline users") {
		t.Errorf("another run: status %d\n%s", o.status, o.stderr)
	}
}

func TestUsersKeepTheirKeys(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "nats")
	write := func(more ...string) {
		w.must("pipeline", append(append([]string{"users", "--out", dir}, more...), "pipelines/v76.yml")...)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write("--host", "localhost")
	seed, ca := read("train.nk"), read("ca.pem")
	write("--host", "127.0.0.1", "--run", "r")
	if !bytes.Equal(read("train.nk"), seed) || !bytes.Equal(read("ca.pem"), ca) {
		t.Error("the keys are others than before")
	}
	if conf := string(read("users.conf")); !strings.Contains(conf, "bitnet1.r.checkpoint.saved") ||
		bytes.Contains([]byte(conf), bytes.TrimSpace(seed)) {
		t.Errorf("users.conf: %s", conf)
	}
	for _, name := range []string{"train.nk", "launcher.nk", "ca.key", "localhost.key", "127.0.0.1.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v)", name, info.Mode(), err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"restore the other", "--host", "localhost"}, {"want a name", "--host", "../x"}, {"want a name", "--host", "ca"},
		{"not a run's id", "--run", "a.b"},
	} {
		o := w.run("pipeline", append(append([]string{"users", "--out", dir}, c[1:]...), "pipelines/v76.yml")...)
		if o.status == 0 || !strings.Contains(o.stderr, c[0]) {
			t.Errorf("%v: status %d, want %q in: %s", c[1:], o.status, c[0], o.stderr)
		}
	}
}
