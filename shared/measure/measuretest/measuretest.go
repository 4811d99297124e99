// Package measuretest makes small datasets and checkpoints for the tests of stages, and runs the program of a stage.
package measuretest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/artifact"
)

// asProgram is the environment variable that makes a test binary run the stage's program.
const asProgram = "BITNET1_TEST_AS_PROGRAM"

// Main is for the TestMain of a stage: it lets the test binary be the stage's program, which tests run and kill.
func Main(m *testing.M, program func()) {
	if os.Getenv(asProgram) != "" {
		program()
	}
	os.Exit(m.Run())
}

// Program returns the stage's command `run` with the given flags, not yet started, and a buffer for its output.
func Program(t *testing.T, flags ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"run"}, flags...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	return cmd, &said
}

// Run runs the program, which must succeed, and returns its output.
func Run(t *testing.T, flags ...string) string {
	t.Helper()
	cmd, said := Program(t, flags...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", flags, err, said)
	}
	return said.String()
}

// Defaults compares the defaults of the stage's parameters with those that a JSON mapping gives. A default is part of
// the key of a job: where it changes, everything that was made with it is made again.
func Defaults(t *testing.T, want string) {
	t.Helper()
	cmd, said := Program(t)
	cmd.Args = []string{cmd.Path, "describe"}
	var described struct {
		Parameters []struct {
			Key     string
			Default any
		}
	}
	err := cmd.Run()
	if err == nil {
		err = json.Unmarshal(said.Bytes(), &described)
	}
	got, wanted := map[string]any{}, map[string]any{}
	if err == nil {
		err = json.Unmarshal([]byte(want), &wanted)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range described.Parameters {
		got[p.Key] = p.Default
	}
	if !reflect.DeepEqual(got, wanted) {
		b, err := json.Marshal(got)
		t.Errorf("the defaults are %s (%v), want %s", b, err, want)
	}
}

// ReadJSON reads a JSON file into the value that to points at.
func ReadJSON(t *testing.T, path string, to any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Documented makes sure that the section of docs/formats/reports.md under a heading lists the keys of the reports,
// nested ones in tables of their own, and no others.
func Documented(t *testing.T, heading string, reports ...any) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "formats", "reports.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/formats/reports.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(section, -1) {
		listed[row[1]] = true
	}
	written := map[string]bool{}
	for _, r := range reports {
		keysOf(reflect.TypeOf(r), written)
	}
	for key := range written {
		if !listed[key] {
			t.Errorf("docs/formats/reports.md, %s: the key %s is missing", heading, key)
		}
	}
	for key := range listed {
		if !written[key] {
			t.Errorf("docs/formats/reports.md, %s: no report has the key %s", heading, key)
		}
	}
}

// keysOf adds the JSON keys of a type, and of the types inside it, to keys.
func keysOf(of reflect.Type, keys map[string]bool) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice:
		keysOf(of.Elem(), keys)
	case reflect.Struct:
		for i := range of.NumField() {
			field := of.Field(i)
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if key != "" {
				keys[key] = true
			}
			if key != "" || field.Anonymous {
				keysOf(field.Type, keys)
			}
		}
	}
}

// Proverbs are twelve texts, enough for a few batches.
func Proverbs() []string {
	var texts []string
	for i := range 12 {
		texts = append(texts,
			strings.Repeat(fmt.Sprintf("Proverb %d: a watched pot never boils, and %d hands make light work. ", i, i*i), 6))
	}
	return texts
}

// Sealed makes a dataset of the texts, with bytes as tokens, and returns the path of its manifest. The shards lie
// beside it.
func Sealed(t *testing.T, options seal.Options, texts ...string) (manifest string) {
	t.Helper()
	dir := t.TempDir()
	folder, err := artifact.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	batch := filepath.Join(dir, "texts.tokens.arrow")
	writeBatch(t, batch, texts)
	options.Duplicates = seal.KeepDuplicates
	m, err := seal.Dataset(t.Context(), options, []string{batch}, func(name string) (seal.Output, error) {
		w, err := folder.Create("shard", "", name)
		return output{w}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	manifest = filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(manifest, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return manifest
}

func writeBatch(t *testing.T, path string, texts []string) {
	t.Helper()
	bytes, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := dataset.NewBatchWriter(f,
		dataset.TokenizerInfo{Name: bytes.Name(), Vocab: bytes.Vocab(), EndOfText: bytes.EndOfText()})
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		row := dataset.BatchDocument{ID: fmt.Sprint(i), Source: "texts", Row: int64(i), Bytes: int64(len(text))}
		if err := w.Append(row, bytes.Encode(nil, []byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// output lets seal.Dataset write an artifact.
type output struct{ *artifact.Writer }

func (o output) Commit() (digest string, size int64, err error) {
	ref, err := o.Writer.Commit()
	return ref.Digest, ref.Size, err
}

// Open opens a dataset that Sealed made.
func Open(t *testing.T, manifest string) *dataset.Dataset {
	t.Helper()
	data, _, err := dataset.Load(manifest,
		func(s dataset.Shard) (string, error) { return filepath.Join(filepath.Dir(manifest), s.Name), nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { data.Close() })
	return data
}

// Config is the configuration of a v76 over bytes that computes in milliseconds, for sequences of at most seq tokens.
func Config(seq int) model.Config {
	return model.Config{Vocab: 257, D: 24, Layers: 2, Heads: 2, FF: 40, Seq: seq, Alibi: true, Eps: 1e-5,
		StreamBits: 1}.V76()
}

// Checkpoint writes a checkpoint with initial parameters and returns its path.
func Checkpoint(t testing.TB, c model.Config, p checkpoint.Provenance) string {
	t.Helper()
	m, err := model.New(c, cpu.New(cpu.Options{}), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(11); err != nil {
		t.Fatal(err)
	}
	parameters, err := m.Parameters()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), fmt.Sprintf("step-%06d.safetensors", p.Step))
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := checkpoint.Write(f, checkpoint.Model{Config: c, Parameters: parameters, Provenance: p}); err != nil {
		t.Fatal(err)
	}
	return path
}

// Shaken is the checkpoint with scales, thresholds and gains that differ by channel, as training leaves them.
func Shaken(t *testing.T, path string) string {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(5, 8))
	m := checkpoint.Model{Config: f.Config, Provenance: f.Provenance}
	for p, err := range f.Parameters() {
		if err != nil {
			t.Fatal(err)
		}
		p.Data = slices.Clone(p.Data)
		if !strings.HasSuffix(p.Name, ".weight") {
			for i := range p.Data {
				p.Data[i] = p.Data[i]*(1+0.3*float32(random.NormFloat64())) + 0.1*float32(random.NormFloat64())
			}
		}
		m.Parameters = append(m.Parameters, p)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "shaken.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := checkpoint.Write(out, m); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// Packed packs a checkpoint and returns the path of the packed model.
func Packed(t *testing.T, path string) string {
	t.Helper()
	saved, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "packed.bit2"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := bit2.Write(f, saved.Config, saved.Provenance, saved.Parameters(), nil); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// Load loads a checkpoint that computes batch sequences at once, and returns its settings too.
func Load(t *testing.T, path string, batch int) (*model.Model, model.Settings) {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, settings, err := f.Inference(cpu.New(cpu.Options{}), batch, 0)
	if err != nil {
		t.Fatal(err)
	}
	return m, settings
}
