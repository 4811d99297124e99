package docs

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// The tests of this file run the commands that pages show: `go test ./docs` with a tiny model, `task docs:run` as they
// are typed.

var long = flag.Bool("long", false, "run the commands of the pages as they are typed, which takes minutes")

// exception is an entry of testdata/commands.yml: commands that are run with further arguments, or not at all.
type exception struct {
	Commands []string
	Add, Not string
	Slow     bool
}

func exceptions(t *testing.T) map[string]exception {
	t.Helper()
	b, err := os.ReadFile("testdata/commands.yml")
	if err != nil {
		t.Fatal(err)
	}
	var groups []exception
	if err := yaml.Unmarshal(b, &groups); err != nil {
		t.Fatal(err)
	}
	all := map[string]exception{}
	for _, h := range groups {
		for _, command := range h.Commands {
			all[command] = h
		}
	}
	return all
}

// preset is a preset of a tiny model.
const preset = `stages:
  tokenize: {tokenizer: bytes}
  shard: {sequence_length: 64, validation_share: 0.05}
  train: {d: 32, layers: 1, heads: 1, ff: 32, steps: 4, warmup: 1, checkpoint_every: 2,
    batch_tokens: 256, micro_tokens: 256}
  evaluate: {sequences: 16}
  probe: {sequences: 16, repeats: 4}
`

// block is a block of code on a page, between fences.
type block struct {
	page           string
	line           int
	language, text string
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks returns the blocks of all pages in the given languages. A block without a language is an error, because the
// test would miss its commands.
func blocks(t *testing.T, languages ...string) []block {
	t.Helper()
	var all []block
	texts := pages(t)
	for _, page := range slices.Sorted(maps.Keys(texts)) {
		for _, at := range fence.FindAllStringSubmatchIndex(texts[page], -1) {
			b := block{page, 1 + strings.Count(texts[page][:at[0]], "\n"), texts[page][at[2]:at[3]], texts[page][at[4]:at[5]]}
			if b.language == "" {
				t.Errorf("%s:%d: a block without a language: sh for commands, text for what they print", page, b.line)
			}
			if slices.Contains(languages, b.language) {
				all = append(all, b)
			}
		}
	}
	return all
}

var (
	comment = regexp.MustCompile(`\s+# .*$`)
	ends    = regexp.MustCompile(`# .*\bstatus (\d)`)
	spaces  = regexp.MustCompile(`\s+`)
)

// TestCommandsOfPages runs the commands of all pages. Each page has a folder with the files and runs that pages
// mention.
func TestCommandsOfPages(t *testing.T) {
	root, commands := world(t), exceptions(t)
	unused := maps.Clone(commands)
	folders := map[string]string{}
	for _, b := range blocks(t, "sh") {
		if folders[b.page] == "" {
			folders[b.page] = folder(t, root)
		}
		for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
			command := spaces.ReplaceAllString(comment.ReplaceAllString(strings.TrimSpace(line), ""), " ")
			h := commands[command]
			delete(unused, command)
			if command == "" || h.Not != "" {
				continue
			}
			if !*long || h.Slow {
				command = with(command, h.Add)
			}
			want := 0
			if m := ends.FindStringSubmatch(line); m != nil {
				want = int(m[1][0] - '0')
			}
			began := time.Now()
			if out, status := inShell(t, folders[b.page], script(t, command)); status != want {
				t.Errorf("%s:%d: %s\nends with status %d, want %d:\n%s", b.page, b.line, command, status, want, out)
			}
			t.Logf("%5.1f s  %s", time.Since(began).Seconds(), command)
		}
	}
	for command := range unused {
		t.Errorf("no page has the command %s: take it out of testdata/commands.yml", command)
	}
}

// with is a command with further arguments.
func with(command, arguments string) string {
	if arguments != "" && strings.Contains(command, "task ") && !strings.Contains(command, " -- ") {
		command += " --"
	}
	return strings.TrimSpace(command + " " + arguments)
}

// TestYAMLOfPages has the launcher check every pipeline file that a page shows, whole or in part.
func TestYAMLOfPages(t *testing.T) {
	description := blocks(t, "json")
	i := slices.IndexFunc(description, func(b block) bool { return strings.Contains(b.text, `"name": "verdict"`) })
	if i < 0 {
		t.Fatal("no page has the description of the stage verdict")
	}
	dir := t.TempDir()
	// The stage that the page describes, as far as the launcher asks it before a run; it needs no Python here.
	write(t, filepath.Join(dir, "verdict.json"), description[i].text)
	program := "#!/bin/sh\ncase \"$*\" in *--check) cat >/dev/null ;; *) cat verdict.json ;; esac\n"
	write(t, filepath.Join(dir, "path", "python3"), program)
	found := 0
	for _, b := range blocks(t, "yaml") {
		if !strings.Contains(b.text, "stages:") {
			b.text += "stages: {tokenize: {}, shard: {}}\n"
		}
		write(t, filepath.Join(dir, "my.yml"), b.text)
		out, status := inShell(t, dir, "PATH=$PWD/path:$PATH; pipeline run --check my.yml")
		if status != 0 || out != "" {
			t.Errorf("%s:%d: the launcher says of this file:\n%s", b.page, b.line, out)
		}
		found++
	}
	if found < 2 {
		t.Errorf("%d files: has a page lost its example?", found)
	}
}

// script replaces `task NAME -- ARGUMENTS` by the command of that task.
func script(t *testing.T, command string) string {
	t.Helper()
	command = strings.TrimPrefix(command, "go tool -modfile=tools/go.mod ")
	rest, isTask := strings.CutPrefix(command, "task ")
	if !isTask {
		return command
	}
	name, arguments, _ := strings.Cut(rest, " --")
	b, err := os.ReadFile("../Taskfile.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tasks map[string]struct{ Cmds []yaml.Node }
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	lines := file.Tasks[strings.TrimSpace(name)].Cmds
	if len(lines) != 1 || lines[0].Kind != yaml.ScalarNode {
		t.Fatalf("task %s is not one command, which is what this test can run: list it", name)
	}
	return strings.ReplaceAll(lines[0].Value, "{{.CLI_ARGS}}", strings.TrimSpace(arguments))
}

// inShell runs a command with the programs in the path, and returns what it wrote and its exit status.
func inShell(t *testing.T, dir, command string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "NATS_") || strings.HasPrefix(variable, "BITNET1_")
	})
	cmd.Env = append(cmd.Env, "PATH="+programs(t)+string(os.PathListSeparator)+os.Getenv("PATH"), "TERM=dumb")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// built builds all programs once and returns their folder.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "bitnet1-docs")
	if err != nil {
		return "", err
	}
	scratch = append(scratch, dir)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", dir+"/",
		"../stages/...", "../pipelines/pipeline", "../pipelines/experiment", "../pipelines/report",
		"../pipelines/export", "../pipelines/profile", "./examples/continue", "./examples/flips")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
})

func programs(t *testing.T) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// scratch are folders that several tests use and TestMain removes.
var scratch []string

func TestMain(m *testing.M) {
	status := m.Run()
	for _, dir := range scratch {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// world makes a folder with everything that pages mention: programs, pipeline files, texts, a dataset, and runs under
// the names that pages use.
func world(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Symlink(programs(t), filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"pipelines", "docs/examples"} {
		files, err := filepath.Glob(filepath.Join("..", folder, "*.yml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%v, %v", files, err)
		}
		for _, path := range files {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, folder, filepath.Base(path)), string(b))
		}
		write(t, filepath.Join(root, folder, "presets", "tiny.yml"), preset)
	}
	recipes, err := filepath.Abs("recipes") // with results files
	if err == nil {
		err = os.Symlink(recipes, filepath.Join(root, "docs", "recipes"))
	}
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile("../shared/lm/checkpoint/testdata/numpy.pt")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "model.pt"), string(weights))
	write(t, filepath.Join(root, "input.txt"),
		strings.Repeat("It was the first day of the year. Nobody knew it yet.\n", 200))
	var talk strings.Builder
	for i := range 40 {
		fmt.Fprintf(&talk,
			`{"conversations": [{"from": "human", "value": "%d and %d?"}, {"from": "gpt", "value": "%d."}]}`+"\n", i, i*i, i+i*i)
	}
	write(t, filepath.Join(root, "glm", "sums.jsonl"), talk.String())
	for _, command := range []string{
		"pipeline sample && cp -r data/sample books && mkdir new && cp books/tom*.parquet new",
		"tokenize run --in books/*.parquet --out tokens --preset nano && shard run --in tokens/*.arrow " +
			"--out dataset --preset nano",
		"pipeline run --preset tiny --run RUN --set train.steps=600 --set train.checkpoint_every=150 pipelines/v76.yml",
		"pipeline run --preset tiny --run OTHER --source books/sherlock*.parquet --set " +
			"shard.duplicates=exact pipelines/v76.yml",
		"pipeline run --preset tiny --run v76-75M-1a2b3c4d pipelines/v76.yml",
		"pipeline run --preset tiny --run v76-75M-5e6f7a8b --set train.stream_bits=4 pipelines/v76.yml",
	} {
		began := time.Now()
		if out, status := inShell(t, root, command); status != 0 {
			t.Fatalf("%s\nends with status %d:\n%s", command, status, out)
		}
		t.Logf("%5.1f s  %s", time.Since(began).Seconds(), command)
	}
	return root
}

// folder makes a working directory with links to all of the world. Commands of one page do not see files of another.
func folder(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(root, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
