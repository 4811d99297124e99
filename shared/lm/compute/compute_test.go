package compute

import (
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	d, err := Open(CPU, 2)
	if err != nil || !strings.HasPrefix(d.Name(), "cpu, 2") {
		t.Errorf("cpu opened as %v, %v", d, err)
	}
	d, err = Open(Auto, 1)
	if err != nil {
		t.Fatalf("auto: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"gpu", "cpu:1", "cuda:x", "cuda:99"} {
		if _, err := Open(name, 1); err == nil {
			t.Errorf("%s opened", name)
		}
	}
}
