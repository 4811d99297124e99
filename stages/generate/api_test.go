package main

import (
	"bufio"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/measure/measuretest"
)

// api returns the program's command api, not yet started.
func api(t *testing.T, flags ...string) *exec.Cmd {
	t.Helper()
	cmd, _ := measuretest.Program(t, flags...)
	cmd.Args[1] = "api"
	cmd.Stdout, cmd.Stderr = nil, nil
	return cmd
}

// The program says where it listens, answers there, and ends when it is told to.
func TestAPI(t *testing.T) {
	path := measuretest.Packed(t, measuretest.Checkpoint(t, measuretest.Config(64).V77(),
		checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1}))
	cmd := api(t, "--in", path, "--addr", "127.0.0.1:0")
	cmd.Env = append(cmd.Env, "BITNET1_API_TOKEN=secret")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	var said, url string
	for url == "" && lines.Scan() {
		said += lines.Text() + "\n"
		if at, ok := strings.CutPrefix(lines.Text(), "API "); ok {
			url = strings.TrimSpace(at)
		}
	}
	if !strings.Contains(said, "packed: step 7, context of 64 tokens of bytes") || url == "" {
		t.Fatalf("the program says %q", said)
	}
	for token, want := range map[string]string{"": "has not the token", "secret": `"id":"packed"`} {
		r, err := http.NewRequest(http.MethodGet, url+"/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("with token %q: %s, %v; want %s", token, b, err, want)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("told to end, it ends with %v", err)
	}
}

func TestAPIRefuses(t *testing.T) {
	path := measuretest.Packed(t, measuretest.Checkpoint(t, measuretest.Config(64).V77(),
		checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1}))
	for flags, want := range map[string]string{
		"--addr 0.0.0.0:8000":     "set BITNET1_API_TOKEN",
		"--addr :8000":            "set BITNET1_API_TOKEN",
		"--addr machine:8000":     "set BITNET1_API_TOKEN",
		"--addr 127.0.0.1":        "missing port",
		"--addr 127.0.0.1:999999": "invalid port",
		"--parallel 0":            "--parallel 0: it must be positive",
		"--queue -1":              "--queue -1: it must be positive",
		"--max-tokens -1":         "must not be negative",
		"--turn-template {role}":  "it must have {text} once",
		"more":                    "unexpected argument",
		"--in none.bit2":          "none.bit2",
	} {
		b, err := api(t, append([]string{"--in", path}, strings.Fields(flags)...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %v, %s; want %q", flags, err, b, want)
		}
	}
}
