//go:build cuda

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"bitnet1/kernels/cuda/fakecuda"
	"bitnet1/shared/lm/compute"
)

func TestMeasureGPUsTogether(t *testing.T) {
	devices, err := compute.Devices("0,1")
	if err != nil {
		t.Skip(err)
	}
	measuresTogether(t, devices...)
	dev, err := compute.Open("cuda:0", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	s := small("cuda:0")
	one, err := s.memory(dev)
	if err != nil {
		t.Fatal(err)
	}
	s.micro /= 2
	if half, err := s.memory(dev); err != nil || half <= 0 || half >= one {
		t.Errorf("training takes %d bytes, and %d with half of the tokens at once (%v)", one, half, err)
	}
}

// Without GPUs, what happens around the kernels is tested on a library that stands in for CUDA.
func TestMeasureTogetherWithoutGPU(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^TestMeasureGPUsTogether$", "-test.timeout", "1m")
	cmd.Env = append(os.Environ(), fakecuda.Environment(t)...)
	said, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(said), "--- PASS") {
		t.Errorf("two GPUs of a stand-in: %v\n%s", err, said)
	}
}
