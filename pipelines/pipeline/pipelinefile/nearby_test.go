package pipelinefile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// If a pipeline file is missing, the error lists the files of the folder pipelines, and no YAML files beside that
// folder.
func TestNearbyFiles(t *testing.T) {
	dir := t.TempDir()
	pipelines := filepath.Join(dir, "pipelines")
	if err := os.Mkdir(pipelines, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "Taskfile.yml"), filepath.Join(pipelines, "mine.yml")} {
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{filepath.Join(dir, "mine"), pipelines, filepath.Join(pipelines, "yours.yml")} {
		_, err := ReadFile(path)
		if err == nil || !strings.HasSuffix(err.Error(), ": there are "+filepath.Join(pipelines, "mine.yml")) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
