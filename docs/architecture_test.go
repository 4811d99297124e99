package docs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mayImport says which folders of ours the packages of a folder may import, and their tests. The longest folder that
// holds a package decides, and a folder allows all folders in it.
var mayImport = map[string][]string{
	"kernels":            {"kernels"},
	"kernels/number":     {"kernels/number"},
	"shared/alloctest":   {},
	"shared/digest":      {},
	"shared/filetype":    {},
	"shared/plot":        {},
	"shared/processtest": {},
	"shared/pythontest":  {},
	"shared/s3":          {"shared/s3", "shared/processtest"},
	"shared/run": {"shared/run", "shared/alloctest", "shared/digest", "shared/filetype", "shared/processtest",
		"shared/pythontest", "shared/s3"},
	"shared/data": {"shared/data", "shared/alloctest", "shared/digest", "shared/filetype", "shared/pythontest",
		"shared/s3"},
	"shared/lm": {"shared/lm", "shared/alloctest", "shared/digest", "shared/filetype", "shared/pythontest",
		"kernels"},
	"shared/measure": {"shared", "kernels"},
	"stages":         {"shared", "kernels"},
	"stages/pack":    {"shared", "kernels", "docs/examples"}, // it ships the model in PyTorch that pages show
	"pipelines":      {"shared", "kernels"},
	"docs":           {"shared", "kernels"},
	"tools":          {"shared", "kernels"},
}

// Imports point one way: stages and pipelines -> shared -> kernels. The wings of shared, run, data and lm, do not
// import one another; no stage and no command imports another.
func TestImportsPointOneWay(t *testing.T) {
	for _, tags := range []string{"", "cuda"} {
		list := exec.Command("go", "list", "-tags", tags, "-f",
			`{{.ImportPath}} {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`, "bitnet1/...")
		list.Env = append(os.Environ(), "CGO_ENABLED=1") // the tag cuda needs cgo; nothing is compiled
		out, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			words := strings.Fields(line)
			from := strings.TrimPrefix(words[0], "bitnet1/")
			folders, ok := allowed(from)
			if !ok {
				t.Errorf("package %s lies in no folder that the rules of imports know", from)
			}
			for _, imported := range words[1:] {
				to, ours := strings.CutPrefix(imported, "bitnet1/")
				if ours && !slices.ContainsFunc(append(folders, program(from)),
					func(folder string) bool { return within(to, folder) }) {
					t.Errorf("%s imports %s", from, to)
				}
			}
		}
	}
}

// allowed returns what the packages of the longest folder that holds the package may import.
func allowed(path string) (folders []string, ok bool) {
	for folder := path; folder != "."; folder = filepath.Dir(folder) {
		if folders, ok = mayImport[folder]; ok {
			return folders, true
		}
	}
	return nil, false
}

// program is the folder of the stage or command that a package belongs to, and the package itself where it belongs to
// none.
func program(path string) string {
	parts := strings.Split(path, "/")
	if parts[0] == "shared" || parts[0] == "kernels" {
		return path
	}
	return filepath.Join(parts[:min(2, len(parts))]...)
}

// within reports whether a package is the folder, or lies in it.
func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

var treeLine = regexp.MustCompile(`^((?:  )*)([^ ]+)/ +([^ ].*)$`)

// The tree that CONTRIBUTING.md shows has a line for each folder of the project but testdata, and no other.
func TestContributingShowsTheFolders(t *testing.T) {
	b, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "```text\n")
	tree, _, _ := strings.Cut(after, "```")
	var shown, path []string
	for line := range strings.Lines(tree) {
		line = strings.TrimSuffix(line, "\n")
		m := treeLine.FindStringSubmatch(line)
		if m == nil || len(m[1])/2 > len(path) || len(line) > 120 {
			t.Fatalf("the line %q is no folder and what is in it, below its parent, in at most 120 columns", line)
		}
		path = append(path[:len(m[1])/2], m[2])
		shown = append(shown, strings.Join(path, "/"))
	}
	there := folders(t)
	for _, folder := range there {
		if !slices.Contains(shown, folder) {
			t.Errorf("CONTRIBUTING.md does not show the folder %s: add a line to its tree", folder)
		}
	}
	for i, folder := range shown {
		if !slices.Contains(there, folder) {
			t.Errorf("CONTRIBUTING.md shows the folder %s, which is not there", folder)
		}
		if slices.Contains(shown[:i], folder) {
			t.Errorf("CONTRIBUTING.md shows the folder %s twice", folder)
		}
	}
}

// folders lists the project's folders that hold files, themselves or further down.
func folders(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		below, _ := filepath.Rel("..", path)
		switch {
		case err != nil:
			return err
		case d.IsDir() &&
			(strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata" ||
				slices.Contains(notSource, below)):
			return filepath.SkipDir
		case !d.IsDir():
			for folder := filepath.Dir(below); folder != "." && !slices.Contains(all, folder); folder = filepath.Dir(folder) {
				all = append(all, folder)
			}
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d folders, error %v", len(all), err)
	}
	return all
}

// Programs serve HTTP with the limits of package web, and start programs by their words: no shell reads what a user or
// an event says.
func TestOneWayToServeAndNoShell(t *testing.T) {
	forbidden := regexp.MustCompile(`http\.Server\{|http\.ListenAndServe|` +
		`exec\.Command(Context)?\([^)]*"(/bin/)?(ba|da|z)?sh"`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") ||
			strings.HasPrefix(path, "../shared/run/web/") {
			return err
		}
		b, err := os.ReadFile(path)
		if found := forbidden.Find(b); found != nil {
			t.Errorf("%s has %s", path, found)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
