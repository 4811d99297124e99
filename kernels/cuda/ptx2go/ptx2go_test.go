package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is checked in belongs together. It needs no GPU, no clang and no build tag.
func TestGeneratedFileIsCurrent(t *testing.T) {
	if err := run("..", true); err != nil {
		t.Fatal(err)
	}
}

// A small source with all that ptx2go reads, and the PTX that clang would make of it.
var small = map[string]string{
	"src/prelude.cuh": `#define __global__ __attribute__((global))
#define KERNEL(category, ...) extern "C" __global__ __VA_OPT__(__launch_bounds__(__VA_ARGS__))
`,
	"src/pair.cuh": `#pragma once
constexpr int kWords = 2;
template <class T> struct Pair {
  const T *first, *second;  // of T
  // What is behind both.
  uint32_t key[kWords];
  static constexpr int kRun = 4, kSize = sizeof(T);
  struct Part { int a; };
  __device__ T sum(int i) const {
    return first[i] + second[i];
  }
};
`,
	"src/add.cu": `// Adds.
#include "pair.cuh"

constexpr int kSlot = 16, kBytes = (kSlot + 1) * 4;

// The work.
struct Work {
  int rows, columns;
  long stride;
  Pair<float> pair;
  double scale;
};

template <class T> void add(const Work& w) {}  // static, so no kernel

KERNEL(elementwise float, 256, 2) void add_rows(const __grid_constant__ Work work,
    float* out, int rows, long stride) {
  out[0] = 1;
}

#define BOTH(type, T)                                            \
  KERNEL(rounding shared(kBytes), 128) void round_##type(T* x) { \
    round(x);                                                    \
  }                                                              \
  KERNEL(copies) void copy_2_4_##type(Pair<T> pair) {}
BOTH(float32, float)
BOTH(bfloat16, BFloat)
`,
	"ptx/add.ptx": `.target sm_80
.extern .shared .align 4 .b8 room[];

.visible .entry add_rows(
	.param .align 8 .b8 add_rows_param_0[48],
	.param .u64 .ptr .align 1 add_rows_param_1,
	.param .u32 add_rows_param_2,
	.param .u64 add_rows_param_3
)
.maxntid 256                            // @add_rows
{
	ret;
}
.visible .entry round_float32(
	.param .u64 .ptr .align 1 round_float32_param_0
)
.maxntid 128
{
	mov.b64 	%rd1, room;
}
.visible .entry copy_2_4_float32(
	.param .align 8 .b8 copy_float32_param_0[24]
)
{
	ret;
}
.visible .entry round_bfloat16(
	.param .u64 .ptr .align 1 round_bfloat16_param_0
)
.maxntid 128
{
	mov.b64 	%rd1, room;
}
.visible .entry copy_2_4_bfloat16(
	.param .align 8 .b8 copy_bfloat16_param_0[24]
)
{
	ret;
}
`,
}

// write puts files into a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// squeezed is text with every run of blanks as one, for gofmt aligns columns.
func squeezed(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestGenerate(t *testing.T) {
	text, err := generate(write(t, small))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"//go:build cuda",
		`{"add", "sm_80", []kernel{`,
		`{timing.Operation{Name: "add_rows", Category: timing.Elementwise, Float: true}, 256, 0},`,
		`{timing.Operation{Name: "round_bfloat16", Category: timing.Rounding}, 128, 68},`,
		`{timing.Operation{Name: "copy_2_4_float32", Category: timing.Copies}, 0, 0},`,
		"kBytes = 68",
		"// The work. type work struct { rows int32 columns int32 stride int64 pair pair scale float64 }",
		"first cu.DevicePtr // of T second cu.DevicePtr // of T // What is behind both. key [2]uint32 }",
		"func (pair) kRun() int { return 4 }",
		"var _ [48]byte = [unsafe.Sizeof(work{})]byte{}",
		"func (l launch) addRows(work work, out cu.DevicePtr, rows, stride int) error {" +
			` return l.queue("add_rows", argument(work), argument(out), argument(int32Of(rows)), argument(int64Of(stride))) }`,
		"type both struct { round func(l launch, x cu.DevicePtr) error copy2_4 func(l launch, pair pair) error }",
		"bothBfloat16 = both{launch.roundBfloat16, launch.copy2_4Bfloat16}",
	} {
		if !strings.Contains(squeezed(string(text)), want) {
			t.Errorf("the generated file lacks %s", want)
		}
	}
	if strings.Contains(string(text), "kSize") {
		t.Error("a constant that depends on a template's argument became one of Go")
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

// What does not fit is refused with words that say where.
func TestRefusals(t *testing.T) {
	source, header, ptx := "src/add.cu", "src/pair.cuh", "ptx/add.ptx"
	for name, c := range map[string]struct{ file, old, new, want string }{
		"unknown category": {source, "(elementwise float", "(elementary float",
			`kernel add_rows: unknown category "elementary"`},
		"no category": {source, "KERNEL(elementwise float, 256, 2)", `KERNEL(, 256, 2)`, `unknown category ""`},
		"unknown annotation": {source, "(elementwise float", "(elementwise double",
			`unknown annotation "elementwise double"`},
		"no KERNEL": {source, "KERNEL(elementwise float, 256, 2)", `extern "C" __global__`,
			"begin it with KERNEL"},
		"a field less": {source, "  long stride;\n", "", "add_rows: parameter work is of 40 bytes, aligned to " +
			"8, in the PTX of 48 bytes"},
		"a field more":        {header, "key[kWords]", "key[kWords + 2]", "parameter work is of 56 bytes"},
		"a type less aligned": {header, "const T *first, *second;", "int first[2], second[2];", "aligned to 4"},
		"a parameter more": {source, "int rows, long stride", "int rows, int columns, long stride",
			"add_rows: 5 parameters, in the PTX 4"},
		"a parameter's size": {source, "int rows, long stride", "long rows, long stride",
			"parameter rows is of 8 bytes, aligned to 8, in the PTX of 4"},
		"no pointer": {source, "float* out, int rows", "long out, int rows",
			"parameter out is of 8 bytes, aligned to 8, in the PTX a pointer"},
		"not compiled": {source, "BOTH(bfloat16, BFloat)", "BOTH(bfloat16, BFloat)\nBOTH(float16, Half)",
			"kernel round_float16 is not in the PTX"},
		"taken away": {source, "BOTH(bfloat16, BFloat)\n", "",
			"kernels that the source lacks, copy_2_4_bfloat16, round_bfloat16"},
		"shared memory not said": {source, "rounding shared(kBytes)", "rounding",
			"round_float32: it uses dynamic shared memory"},
		"shared memory unused": {source, "elementwise float", "elementwise float shared",
			"add_rows: it uses no dynamic shared memory"},
		"unknown size":       {source, "shared(kBytes)", "shared(kBits)", "undefined: kBits"},
		"C's own precedence": {source, "kSlot = 16", "kSlot = 1 << 3 + 1", "want an expression of integers"},
		"unknown struct":     {source, "Pair<float> pair", "Triple<float> pair", "struct Triple has 0 definitions"},
		"a struct twice":     {source, "// The work.", "struct Pair {\n};", "struct Pair has 2 definitions"},
		"names that differ":  {source, "copy_2_4_##type", "copy_##type##_all", "the name copy_float32_all must end with"},
		"no target":          {ptx, ".target sm_80\n", "", "no .target"},
	} {
		t.Run(name, func(t *testing.T) {
			files := maps.Clone(small)
			if files[c.file] = strings.Replace(small[c.file], c.old, c.new, 1); files[c.file] == small[c.file] {
				t.Fatalf("%s does not have %q", c.file, c.old)
			}
			if _, err := generate(write(t, files)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// Two files must not mean different things by one name.
func TestNamesOfTwoFiles(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"constant": {"kSlot = 16", "kSlot = 17", "another file has a constant kSlot"},
		"struct":   {"int rows, columns;", "int columns, rows;", "another file has another struct Work"},
	} {
		t.Run(name, func(t *testing.T) {
			files := maps.Clone(small)
			other := strings.Replace(small["src/add.cu"], c.old, c.new, 1)
			files["src/more.cu"] = strings.ReplaceAll(strings.ReplaceAll(other, "kBytes", "kMoreBytes"), "_rows", "_more")
			files["ptx/more.ptx"] = strings.ReplaceAll(small["ptx/add.ptx"], "_rows", "_more")
			if _, err := generate(write(t, files)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// A change of a source without a new generated file is noticed: an order of fields that the sizes do not tell, too.
func TestStaleFile(t *testing.T) {
	for name, c := range map[string]struct{ old, new string }{
		"order of fields": {"int rows, columns;", "int columns, rows;"},
		"category":        {"KERNEL(copies)", "KERNEL(packing)"},
		"shared memory":   {"kSlot = 16", "kSlot = 17"},
		"a comment":       {"// The work.", "// The work and more."},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, small)
			if err := run(dir, false); err != nil {
				t.Fatal(err)
			}
			if err := run(dir, true); err != nil {
				t.Fatalf("what was just written is refused: %v", err)
			}
			path := filepath.Join(dir, "src", "add.cu")
			changed := strings.Replace(small["src/add.cu"], c.old, c.new, 1)
			if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := run(dir, true); err == nil || !strings.Contains(err.Error(), "compile.sh") {
				t.Errorf("the stale file gave %v", err)
			}
		})
	}
}
