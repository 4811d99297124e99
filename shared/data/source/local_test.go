package source

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

// folder makes files with their names as contents, and goes there.
func folder(t *testing.T, names ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, name := range names {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func named(locations ...string) (all []Named) {
	for _, l := range locations {
		all = append(all, Named{Location: l})
	}
	return all
}

func find(t *testing.T, locations ...string) []Found {
	t.Helper()
	found, err := quick().FindAll(context.Background(), named(locations...))
	if err != nil {
		t.Fatalf("%q: %v", locations, err)
	}
	return found
}

func namesOf(found []Found) (names []string) {
	for _, f := range found {
		names = append(names, f.Name)
	}
	return names
}

// TestSourcesAreWhatTheyAre: the same files are the same sources, however they are typed, and in whatever order.
func TestSourcesAreWhatTheyAre(t *testing.T) {
	dir := folder(t, "near.jsonl", "far/b.jsonl", "..data/c.jsonl")
	link(t, "far", "way")
	link(t, filepath.Join(dir, "far", "b.jsonl"), "zz.jsonl")
	if err := os.Link("near.jsonl", "zzz.jsonl"); err != nil {
		t.Fatal(err)
	}
	want := find(t, "near.jsonl", "far/b.jsonl")
	if got := namesOf(want); !slices.Equal(got, []string{"far/b.jsonl", "near.jsonl"}) {
		t.Fatalf("%q", got)
	}
	for _, locations := range [][]string{
		{"near.jsonl", dir + "/far/b.jsonl"},
		{dir + "/far/b.jsonl", "./near.jsonl", "near.jsonl"},
		{"far/../near.jsonl", "far//b.jsonl"},
		{"far/b.jsonl", "near.jsonl", "zz.jsonl", "zzz.jsonl"},
		{"file://" + dir + "/near.jsonl", "f*/*.jsonl", "way/b.jsonl"},
	} {
		if got := find(t, locations...); !slices.Equal(got, want) {
			t.Errorf("%q: %+v, want %+v", locations, got, want)
		}
	}
	// A name that begins with dots is no way up, and the folder of all can be the root.
	if got := namesOf(find(t, "..data/c.jsonl", "near.jsonl")); !slices.Equal(got,
		[]string{"..data/c.jsonl", "near.jsonl"}) {
		t.Errorf("%q", got)
	}
	if got := names(named("/a/x", "/b/x")); !slices.Equal(got, []string{"a/x", "b/x"}) {
		t.Errorf("%q", got)
	}
}

// TestDotsAfterALink: a/.. is where the link a leads, less a name.
func TestDotsAfterALink(t *testing.T) {
	dir := folder(t, "x/y/z.jsonl", "x/here.jsonl", "here.jsonl")
	link(t, "x/y", "down")
	if got := find(t, "down/../here.jsonl"); len(got) != 1 || got[0].Location != dir+"/x/here.jsonl" {
		t.Errorf("%+v", got)
	}
}

func TestLiteralBeforePattern(t *testing.T) {
	folder(t, "data[1].parquet", "data1.parquet", "c/top.jsonl", "c/2024/mid.jsonl", "c/2024/q1/deep.jsonl",
		"a,b.jsonl")
	for pattern, want := range map[string][]string{
		"data[1].parquet": {"data[1].parquet"},
		"data?.parquet":   {"data1.parquet"},
		"c/**/*.jsonl":    {"2024/mid.jsonl", "2024/q1/deep.jsonl", "top.jsonl"},
		"c/**":            {"2024/mid.jsonl", "2024/q1/deep.jsonl", "top.jsonl"},
		"c/*":             {"top.jsonl"}, // a folder beside the files is none of them
		"a,b.jsonl":       {"a,b.jsonl"},
	} {
		if got := namesOf(find(t, pattern)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
	for location, says := range map[string]string{
		"c":             "c/*.jsonl",
		"c/2024/q1":     "c/2024/q1/*.jsonl",
		".":             "*.parquet",
		"*/2024":        "only folders",
		"nothing.jsonl": "no such file",
		"x[":            "syntax error",
		"":              "no such file",
	} {
		if _, err := quick().FindAll(context.Background(), named(location)); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %s", location, err, says)
		}
	}
}

// TestNamesThatAreNoText: the bytes of a name are kept for opening, in a form that JSON and msgpack can hold; what
// people see is text.
func TestNamesThatAreNoText(t *testing.T) {
	folder(t, "caf\xe9.jsonl", "caf\xe8.jsonl", "odd\xff/tab\t.jsonl")
	found := find(t, "**")
	if got := namesOf(found); !slices.Equal(got, []string{"caf%E8.jsonl", "caf%E9.jsonl", "odd%FF/tab%09.jsonl"}) {
		t.Errorf("%q", got)
	}
	for _, f := range found {
		if !utf8.ValidString(f.Location) || Remote(f.Location) {
			t.Errorf("%q", f.Location)
		}
		path, err := f.Check(context.Background())
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if data, err := os.ReadFile(path); err != nil || !strings.HasSuffix(path, string(data)) {
			t.Errorf("%q: %q, %v", path, data, err)
		}
	}
}

// TestNoFiles: what is no file is refused by what it is, before it is opened: opening these would wait for ever.
func TestNoFiles(t *testing.T) {
	folder(t, "in/a.jsonl")
	if err := syscall.Mkfifo("in/pipe", 0o644); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	link(t, "in/pipe", "link")
	link(t, "nowhere", "dangling")
	for location, says := range map[string]string{
		"in/pipe": "pipe", "link": "pipe", "in/*": "in/pipe is a pipe", "socket": "socket", "/dev/zero": "device",
		"in": "folder", "dangling": "no such file",
		"-": "standard input",
	} {
		if _, err := quick().FindAll(context.Background(), named(location)); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %s", location, err, says)
		}
		path := location
		if _, err := (Found{Name: "x", Location: path}).Check(context.Background()); err == nil {
			t.Errorf("%s is read", location)
		}
	}
}

// TestDigestHearsSignals: a file as long as it likes does not keep a program that is to end.
func TestDigestHearsSignals(t *testing.T) {
	folder(t, "a.jsonl")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := quick().FindAll(ctx, named("a.jsonl")); err == nil || ctx.Err() == nil {
		t.Error("it is read to its end")
	}
}

func TestSameNameOfTwo(t *testing.T) {
	data := contents(100)
	folder(t, "a.jsonl")
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { serveFile(w, r, data) })
	if _, err := quick().FindAll(context.Background(), named("a.jsonl", address+"/a.jsonl")); err == nil ||
		!strings.Contains(err.Error(), "would both be called a.jsonl") {
		t.Error(err)
	}
	if found := find(t, "a.jsonl", address+"/b.jsonl", address+"/b.jsonl"); len(found) != 2 {
		t.Errorf("%+v", found)
	}
}

// TestParametersOfSources: a file that several entries name has the parameters of the one that has any.
func TestParametersOfSources(t *testing.T) {
	folder(t, "a.csv", "b.csv", "c.csv")
	link(t, "b.csv", "zz.csv")
	for _, order := range [][]Named{
		{{"*.csv", ""}, {"b.csv", "B"}, {"c.csv", "C"}}, {{"c.csv", "C"}, {"zz.csv", "B"}, {"*.csv", ""}},
	} {
		found, err := quick().FindAll(context.Background(), order)
		if err != nil || len(found) != 3 || found[0].Parameters != "" || found[1].Parameters != "B" ||
			found[2].Parameters != "C" {
			t.Errorf("%+v, %v", found, err)
		}
	}
	if _, err := quick().FindAll(context.Background(), []Named{{"b.csv", "B"}, {"zz.csv", "C"}}); err == nil ||
		!strings.Contains(err.Error(), "named twice") {
		t.Error(err)
	}
}

// TestChangedLocalFile: a file that is not the one that was found is refused.
func TestChangedLocalFile(t *testing.T) {
	folder(t, "a.jsonl")
	found := find(t, "a.jsonl")[0]
	if err := os.WriteFile("a.jsonl", []byte("b.jsonl"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := found.Check(context.Background()); err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Error(err)
	}
}

// TestFileOfThisProcess: a file that a shell has opened for us, as for < FILE, is found by the path that others can
// open.
func TestFileOfThisProcess(t *testing.T) {
	dir := folder(t, "a.jsonl")
	f, err := os.Open("a.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	own := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if _, err := os.Stat(own); err != nil {
		t.Skip("this system has no /proc")
	}
	if found := find(t, own); found[0].Location != dir+"/a.jsonl" || found[0].Name != "a.jsonl" {
		t.Errorf("%+v", found)
	}
}
