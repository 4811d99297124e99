package main

import (
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const source = `package p

func f(n int) (int, error) {
	if n < 1 || n == 7 {
		return 0, fmt.Errorf("%d is %d", n, 3)
	}
	total := 0
	for i := 0; i < n; i++ {
		total += i * 2
	}
	log.Info("total", 5)
	check(total)
	file.Close()
	_ = total
	return min(total, 9), nil
}
`

// written makes a tree of one source file and the lists that are given.
func written(t *testing.T, lists map[string]string) *tree {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{"p/p.go": source, "p/p_test.go": source} {
		lists["../../"+name] = text
	}
	for name, text := range lists {
		path := filepath.Join(root, "tools", "mutate", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &tree{root: root, sources: map[string][]byte{}}
}

// Every operator changes what it should, nothing else is changed, and what comes out is Go.
func TestOperators(t *testing.T) {
	tree := written(t, map[string]string{})
	made, err := tree.generated("p/p.go")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range made {
		got = append(got, strings.TrimPrefix(tree.describe(f), "p/p.go: "))
		changed := source[:f.from] + f.text + source[f.to:]
		if _, err := parser.ParseFile(token.NewFileSet(), "p.go", changed, 0); err != nil {
			t.Errorf("%s: %v", tree.describe(f), err)
		}
	}
	want := []string{
		"if n < 1 || n == 7 { => if !(n < 1 || n == 7) {",
		"if n < 1 || n == 7 { => if n < 1 && n == 7 {",
		"if n < 1 || n == 7 { => if n <= 1 || n == 7 {",
		"if n < 1 || n == 7 { => if n >= 1 || n == 7 {",
		"if n < 1 || n == 7 { => if n < 2 || n == 7 {",
		"if n < 1 || n == 7 { => if n < 1 || n != 7 {",
		"if n < 1 || n == 7 { => if n < 1 || n == 8 {",
		"total := 0 => total := 1",
		"for i := 0; i < n; i++ { => for i := 1; i < n; i++ {",
		"for i := 0; i < n; i++ { => for i := 0; i <= n; i++ {",
		"for i := 0; i < n; i++ { => for i := 0; i >= n; i++ {",
		"for i := 0; i < n; i++ { => for i := 0; i < n; i-- {",
		"total += i * 2 => total -= i * 2",
		"total += i * 2 => total += i / 2",
		"total += i * 2 => total += i * 3",
		"check(total) => nothing",
		"return min(total, 9), nil => return max(total, 9), nil",
		"return min(total, 9), nil => return min(total, 10), nil",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("faults:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Lists are read as they say, and what is not so in the source is named.
func TestLists(t *testing.T) {
	good := map[string]string{
		"targets.txt":    "// of p\nz.go p/*.go: ./p ./q\n",
		"faults.txt":     "# p/p.go: twice as much\n- i * 2\n+ i * 4\n",
		"equivalent.txt": "p/p.go: total := 0 => total := 1\n= nobody looks\n",
	}
	tree := written(t, good)
	faults, err := tree.faults(true, 3, 1)
	if err != nil || len(faults) != 4 || tree.describe(faults[0]) != "p/p.go: total += i * 2 => total += i * 4" {
		t.Fatalf("%+v, %v", faults, err)
	}
	for _, f := range faults {
		if f.file != "p/p.go" || !slices.Equal(f.tests, []string{"./p", "./q"}) {
			t.Errorf("%+v", f)
		}
	}
	if all, err := tree.faults(false, -1, 1); err != nil || len(all) != 18 {
		t.Errorf("%d faults in all, %v", len(all), err)
	}
	if known, err := tree.equivalents(); err != nil || !known["p/p.go: total := 0 => total := 1"] || len(known) != 1 {
		t.Errorf("%v, %v", known, err)
	}
	for want, change := range map[string][2]string{
		`"i * 3" is 0 times in p/p.go`:      {"faults.txt", "# p/p.go: gone\n- i * 3\n+ i\n"},
		`"total" is 6 times in p/p.go`:      {"faults.txt", "# p/p.go: not one\n- total\n+ sum\n"},
		"targets.txt has no tests for q.go": {"faults.txt", "# q.go: unknown\n"},
		"names no source file":              {"targets.txt", "z/*.go: ./z\n"},
	} {
		lists := map[string]string{"targets.txt": good["targets.txt"], "faults.txt": good["faults.txt"]}
		lists[change[0]] = change[1]
		if _, err := written(t, lists).faults(true, 0, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := written(t,
		map[string]string{"equivalent.txt": "p/p.go: a => b\np/p.go: c => d\n= why\n"}).equivalents(); err == nil {
		t.Error("an equivalent without a reason was taken")
	}
}

// What is killed and what survives are found by running the tests, here of a module of their own.
func TestKilledAndSurvived(t *testing.T) {
	t.Setenv("GOWORK", "off") // the module is of no workspace that this one may be in
	tree := written(t, map[string]string{
		"../../go.mod": "module m\n\ngo 1.26\n",
		"../../q/q.go": "package q\n\nfunc Half(n int) int {\n\tif n < 0 {\n\t\treturn 0\n\t}\n\treturn n / 2\n}\n",
		"../../q/q_test.go": "package q\n\nimport \"testing\"\n\nfunc TestHalf(t *testing.T) {\n\tif Half(8) != 4 {\n" +
			"\t\tt.Fatal()\n\t}\n}\n",
		"targets.txt": "q/q.go: ./q\n",
		"faults.txt": "# q/q.go: killed\n- n / 2\n+ n / 3\n# q/q.go: survives\n- return 0\n+ return 1\n" +
			"# q/q.go: known\n- n < 0\n+ n <= 0\n# q/q.go: no Go\n- n / 2\n+ n / \"2\"\n",
		"equivalent.txt": "q/q.go: if n < 0 { => if n <= 0 {\n= half of 0 is 0\n",
	})
	tree.scratch = t.TempDir()
	faults, err := tree.faults(true, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if tree.known, err = tree.equivalents(); err != nil {
		t.Fatal(err)
	}
	if err := tree.healthy(faults); err != nil {
		t.Fatal(err)
	}
	for i, want := range []outcome{killed, survived, equivalent, broken} {
		if got, err := tree.outcome(faults[i]); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", tree.describe(faults[i]), got, err, want)
		}
	}
	if p := percentage(map[outcome]int{killed: 19, survived: 1, equivalent: 7, broken: 3}); p != 95 {
		t.Errorf("19 of 20 are %g %%", p)
	}
	if err := tree.try(faults, 50, 2); err != nil {
		t.Errorf("one of two is enough for 50 %%: %v", err)
	}
	if err := tree.try(faults, 51, 1); err == nil ||
		!strings.Contains(err.Error(), "50.0 % of the faults were killed, fewer than 51 %") {
		t.Errorf("one of two is too few for 51 %%: %v", err)
	}
}

// A fault that is in a program alone, which the tests build, is killed although go has the result of the tests without
// it: the tests' own binary is the same.
func TestAFaultOfAProgramThatTestsBuild(t *testing.T) {
	t.Setenv("GOWORK", "off")
	tree := written(t, map[string]string{
		"../../go.mod":    "module m\n\ngo 1.26\n",
		"../../q/main.go": "package main\n\nfunc main() { print(8 / 2) }\n",
		"../../q/main_test.go": "package main\n\nimport (\n\t\"os/exec\"\n\t\"testing\"\n)\n\n" +
			"func TestHalf(t *testing.T) {\n\tb, err := exec.Command(\"go\", \"run\", \".\").CombinedOutput()\n" +
			"\tif err != nil || string(b) != \"4\" {\n\t\tt.Fatal(string(b))\n\t}\n}\n",
		"targets.txt": "q/main.go: ./q\n",
		"faults.txt":  "# q/main.go: twice as much\n- 8 / 2\n+ 16 / 2\n",
	})
	tree.scratch = t.TempDir()
	faults, err := tree.faults(true, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.healthy(faults); err != nil {
		t.Fatal(err)
	}
	if got, err := tree.outcome(faults[0]); err != nil || got != killed {
		t.Errorf("the fault is %s (%v)", got, err)
	}
}

// What tests start and leave behind ends with them: it would hold files and processors for as long as it likes.
func TestNothingIsLeftRunning(t *testing.T) {
	t.Setenv("GOWORK", "off")
	tree := written(t, map[string]string{
		"../../go.mod": "module m\n\ngo 1.26\n",
		"../../q/q_test.go": "package q\n\nimport (\n\t\"os\"\n\t\"os/exec\"\n\t\"strconv\"\n\t\"testing\"\n)\n\n" +
			"func TestLeaves(t *testing.T) {\n\tc := exec.Command(\"sleep\", \"600\")\n\tif err := c.Start(); err != nil {\n" +
			"\t\tt.Skip(err)\n\t}\n" +
			"\tos.WriteFile(\"pid\", []byte(strconv.Itoa(c.Process.Pid)), 0o644)\n\tt.Fatal()\n}\n",
		"targets.txt": "q/q_test.go: ./q\n",
	})
	if said, err := tree.test("./q", ""); err == nil {
		t.Fatalf("the test is to fail: %s", said)
	}
	pid, err := os.ReadFile(filepath.Join(tree.root, "q", "pid"))
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		state, err := exec.Command("ps", "-o", "state=", "-p", string(pid)).Output()
		if err != nil || strings.HasPrefix(string(state), "Z") {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("process %s goes on", pid)
		}
	}
}
