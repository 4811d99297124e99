package pytorch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
)

func open(t *testing.T, name string) *File {
	t.Helper()
	f, err := Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// The files in testdata are PyTorch 2.15's. Element i of every tensor is i/4 - 1.
func TestReadsWhatPyTorchWrote(t *testing.T) {
	f := open(t, "types.pt")
	if want := []string{"double", "half", "bfloat16", "view", "scalar", "empty", "parameter"}; !slices.Equal(f.Names(),
		want) {
		t.Errorf("names %v, want %v", f.Names(), want)
	}
	for name, want := range map[string]struct {
		shape []int
		data  []float32
	}{
		"double":    {[]int{3}, []float32{-1, -0.75, -0.5}},
		"half":      {[]int{2, 2}, []float32{-1, -0.75, -0.5, -0.25}},
		"bfloat16":  {[]int{5}, []float32{-1, -0.75, -0.5, -0.25, 0}},
		"view":      {[]int{2, 3}, []float32{0, 0.25, 0.5, 0.75, 1, 1.25}}, // from element 4 of 12
		"scalar":    {nil, []float32{2.5}},
		"empty":     {[]int{0, 3}, []float32{}},
		"parameter": {[]int{2}, []float32{-1, -0.75}},
	} {
		shape, err := f.Shape(name)
		if err != nil || !slices.Equal(shape, want.shape) {
			t.Errorf("%s has shape %v (%v), want %v", name, shape, err, want.shape)
		}
		if data, err := f.Float32(name); err != nil || !slices.Equal(data, want.data) {
			t.Errorf("%s holds %v (%v), want %v", name, data, err, want.data)
		}
	}
}

// A training script saves a state dict beside other things, some of which cannot be had without running code.
func TestFindsTheStateDictAmongOtherThings(t *testing.T) {
	f := open(t, "training.pt")
	if want := []string{"_orig_mod.weight", "_orig_mod.bias"}; !slices.Equal(f.Names(), want) {
		t.Errorf("names %v, want %v", f.Names(), want)
	}
	config, _, err := f.Plain("config")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"d": int64(2), "kshift_layers": []any{int64(0)}, "alibi": true, "eps": 1e-5}
	if !reflect.DeepEqual(config, want) {
		t.Errorf("config is %v, want %v", config, want)
	}
	if step, _, err := f.Plain("step"); step != int64(1<<40) || err != nil {
		t.Errorf("step is %v, %v", step, err)
	}
	for _, key := range []string{"when", "big", "model"} {
		if v, ok, err := f.Plain(key); !ok || err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is %v (%v, %v), which is no plain value", key, v, ok, err)
		}
	}
	if v, ok, err := f.Plain("nothing"); ok || err != nil {
		t.Errorf("a key that is not there gave %v, %v", v, err)
	}
}

func TestRefusesOtherFiles(t *testing.T) {
	for name, want := range map[string]string{
		"legacy.pt":     "before PyTorch 1.6",
		"script.pt":     "TorchScript",
		"module.pt":     "not the model",
		"transposed.pt": "contiguous()",
		"absent.pt":     "no such file",
	} {
		if _, err := Open(filepath.Join("testdata", name)); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want %q in it", name, err, want)
		}
	}
}

// A file that was cut off anywhere or has a byte changed is refused, or gives what was in it.
func TestDamage(t *testing.T) {
	whole, err := os.ReadFile(filepath.Join("testdata", "types.pt"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if _, err := read(whole[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for a file", n, len(whole))
		}
	}
	want, err := read(whole)
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for i := range whole {
		damaged := slices.Clone(whole)
		damaged[i] ^= 0x10
		got, err := read(damaged)
		if err == nil && !reflect.DeepEqual(got["double"], want["double"]) {
			t.Errorf("byte %d: the tensor came back as %v", i, got["double"])
		}
		if err == nil {
			passed++
		}
	}
	t.Logf("%d of %d changes went unnoticed: padding and unread fields", passed, len(whole))
}

// read reads all tensors.
func read(file []byte) (map[string][]float32, error) {
	f, err := New("bytes", bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	all := map[string][]float32{}
	for _, name := range f.Names() {
		if all[name], err = f.Float32(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// archive is what torch.save would write for a pickle and one storage.
func archive(pickle string, storage []byte) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, data := range map[string][]byte{"a/data.pkl": []byte(pickle), "a/data/0": storage} {
		e, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err == nil {
			_, err = e.Write(data)
		}
		if err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// tensorOf is the pickle of {name: tensor}, of a shape with dimensions below 256.
func tensorOf(name, class string, offset int, shape, stride string) string {
	return "X" + string([]byte{byte(len(name)), 0, 0, 0}) + name +
		"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagec" + class +
		"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQJ" +
		string(binary.LittleEndian.AppendUint32(nil, uint32(offset))) +
		"(" + shape + "t(" + stride + "t\x89NtR"
}

func TestPickleIsNotRun(t *testing.T) {
	const floats = "torch\nFloatStorage"
	good := tensorOf("w", floats, 0, "K\x02K\x02", "K\x02K\x01")
	large := tensorOf("w", floats, 0, "K\x20K\x20", "K\x20K\x01")
	storage := make([]byte, 4096)
	if all, err := read(archive("\x80\x02}("+good+"u.", storage)); err != nil || len(all["w"]) != 4 {
		t.Fatalf("the good one gave %v, %v", all, err)
	}
	marker := filepath.Join(t.TempDir(), "ran")
	for what, c := range map[string]struct{ pickle, want string }{
		"a command": {"cposix\nsystem\n(X\x08\x00\x00\x00touch x\x00tR.", "no state dict"},
		"in the dict": {"}(" + good + "X\x01\x00\x00\x00vcposix\nsystem\n(X" + string([]byte{byte(len(marker) + 6), 0,
			0, 0}) + "touch " + marker + "tRu.", "without running code"},
		"class": {"}(" + tensorOf("w", "evil\nFloatStorage", 0, "K\x04", "K\x01") + "u.", "evil.FloatStorage"},
		"integers": {"}(" + tensorOf("w", "torch\nComplexFloatStorage", 0, "K\x04", "K\x01") + "u.",
			"ComplexFloatStorage"},
		"beyond": {"}(" + tensorOf("w", floats, 1021, "K\x04", "K\x01") + "u.", "beyond its storage"},
		"huge": {"}(" + tensorOf("w", floats, 0, "\x8a\x05\x00\x00\x00\x00\x01K\x04", "K\x04K\x01") + "u.",
			"larger than the file"},
		"negative":      {"}(" + tensorOf("w", floats, 0, "J\xff\xff\xff\xff", "K\x01") + "u.", "impossible shape"},
		"expanded":      {"}(" + tensorOf("w", floats, 0, "K\xff", "K\x00") + "u.", "contiguous()"},
		"shared":        {"}(" + many(large, 50) + "u.", "share storages"},
		"endless text":  {"X\xff\xff\xff\x7f", "ends in the middle"},
		"long text":     {"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "ends in the middle"},
		"empty":         {".", "describes nothing"},
		"no mark":       {"u", "no mark"},
		"mark as value": {"(\x85", "mark for a value"},
		"unknown":       {"h\x07", "remembered"},
		"opcode":        {"i", "none that PyTorch writes"},
		"odd":           {"}(NNNu.", "key without a value"},
		"into itself":   {"]q\x00h\x00a.", "no state dict"},
	} {
		if _, err := read(archive(c.pickle, storage)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", what, err, c.want)
		}
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("pickle code was run")
	}
}

// many repeats a tensor under other names.
func many(tensor string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Replace(tensor, "X\x01\x00\x00\x00w", fmt.Sprintf("X\x03\x00\x00\x00%03d", i), 1))
	}
	return b.String()
}

// Whatever a file claims, memory for it stays in proportion to its size.
func TestHostileFilesTakeLittleMemory(t *testing.T) {
	var entries bytes.Buffer
	w := zip.NewWriter(&entries)
	for i := range 100_000 {
		if _, err := w.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("a/data/%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for what, file := range map[string][]byte{
		"pushes": archive(strings.Repeat("N", 1<<20), nil),
		"dicts":  archive(strings.Repeat("}", 1<<20), nil),
		"memo":   archive("N"+strings.Repeat("\x94", 1<<20), nil),
		"places": archive(strings.Repeat("Nr\xff\xff\xff\x7f", 1<<17), nil),
		"sizes": archive("}("+strings.Repeat("K\x01",
			1<<19)+"tq\x00"+strings.Repeat("ctorch._utils\n_rebuild_tensor_v2\n(NK\x00h\x00h\x00tR", 1<<10), nil),
		"pickle":  archive(strings.Repeat("N", maxPickle+1), nil),
		"entries": entries.Bytes(),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := read(file); err == nil {
			t.Errorf("%s: the file was read", what)
		}
		runtime.ReadMemStats(&after)
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 256<<20 {
			t.Errorf("%s: %d MB were taken for a file of %d kB", what, taken>>20, len(file)>>10)
		} else {
			t.Logf("%s: %d MB for %d kB", what, taken>>20, len(file)>>10)
		}
	}
}

// lists is the pickle of a state dict and, under config, of a list of 1,024 times a list of 1,024 times … so deep: each
// is written once and named again and again.
func lists(state string, deep int) string {
	text := func(s string) string { return "X" + string([]byte{byte(len(s)), 0, 0, 0}) + s }
	remembered := func(level int) string { return string([]byte{'h', byte(level)}) }
	var b strings.Builder
	b.WriteString("\x80\x02]q\x000")
	for level := range deep {
		b.WriteString("]q" + string([]byte{byte(level + 1)}) + "(" + strings.Repeat(remembered(level), 1024) + "e0")
	}
	b.WriteString("}(" + text("model") + "}(" + state + "u" + text("config") + remembered(deep) + "u.")
	return b.String()
}

// A value that is named many times is not unfolded beyond what the file could hold.
func TestListsOfOneListStaySmall(t *testing.T) {
	state := tensorOf("w", "torch\nFloatStorage", 0, "K\x02K\x02", "K\x02K\x01")
	for deep, want := range map[int]bool{0: true, 1: true, 4: false} {
		file := archive(lists(state, deep), make([]byte, 4096))
		f, err := New("bytes", bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err = f.Plain("config")
		runtime.ReadMemStats(&after)
		if got := err == nil; got != want {
			t.Errorf("%d levels: %v", deep, err)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 64*uint64(len(file)) {
			t.Errorf("%d levels: %d bytes were taken for a file of %d", deep, taken, len(file))
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, name := range []string{"types.pt", "training.pt", "transposed.pt", "module.pt", "script.pt"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		alloctest.AtMost(t, 1<<18+64*int64(len(file)), func() { read(file) })
	})
}

// FuzzPickle reaches the pickle without the archive's checksums.
func FuzzPickle(f *testing.F) {
	f.Add("\x80\x02}(" + tensorOf("w", "torch\nFloatStorage", 0, "K\x02K\x02", "K\x02K\x01") + "u.")
	f.Add("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00" +
		"]\x94(K\x01M\x00\x02J\x00\x00\x00\x01G?\xf0\x00\x00\x00\x00\x00\x00\x8a\x01\x07\x88e.")
	f.Fuzz(func(t *testing.T, pickle string) {
		file := archive(pickle, make([]byte, 16))
		alloctest.AtMost(t, 1<<18+64*int64(len(file)), func() { read(file) })
	})
}
