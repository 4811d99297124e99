//go:build cuda

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"bitnet1/kernels/cuda/fakecuda"
	"bitnet1/shared/lm/compute"
)

// gpus are the devices of so many ranks.
func gpus(ranks int) string {
	var list []string
	for i := range ranks {
		list = append(list, fmt.Sprint(i))
	}
	return strings.Join(list, ",")
}

// severalGPUs is how many GPUs there are. It skips the test where these cannot train together.
func severalGPUs(t *testing.T) int {
	t.Helper()
	n, err := compute.GPUs()
	if err != nil {
		t.Skip(err)
	}
	if n < 2 {
		t.Skip("this machine has one GPU")
	}
	if _, err := compute.Devices("0,1"); err != nil {
		t.Skip(err)
	}
	return n
}

func TestNumberOfGPUsDoesNotMatter(t *testing.T) {
	worlds, changing := []int{2}, []int{1, 2, 1, 2}
	for n := severalGPUs(t); 2*worlds[len(worlds)-1] <= min(n, 8); {
		ranks := 2 * worlds[len(worlds)-1]
		worlds, changing = append(worlds, ranks), append(changing, 1, ranks, 2, ranks)
	}
	numberOfDevicesDoesNotMatter(t, gpus, worlds, changing)
}

func TestALostGPUEndsTheStep(t *testing.T) {
	severalGPUs(t)
	lostGPUEndsTheStep(t)
}

// Without GPUs, what happens around the kernels is tested on a library that stands in for CUDA. It learns nothing.
func TestRanksWithoutGPU(t *testing.T) {
	for _, variable := range fakecuda.Environment(t) {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	t.Run("number of GPUs", func(t *testing.T) {
		numberOfDevicesDoesNotMatter(t, gpus, []int{2, 4}, []int{1, 2, 4, 2})
	})
	t.Run("lost rank", lostGPUEndsTheStep)
	for failing, want := range map[string]string{
		"ncclCommInitRank:3": "of 3: ncclCommInitRank: NCCL error 3: internal error",
		"rank1:3":            "rank 1 on cuda:1 was lost (CUDA device 1: rank 1 of 3: ncclCommInitRank: NCCL error 3",
	} {
		t.Run("no "+failing, func(t *testing.T) {
			t.Setenv("FAKE_NCCL", failing)
			cmd, said := program(t, world(writeDataset(t, 16, proverbs()...), t.TempDir(), gpus(3))...)
			if err := cmd.Run(); err == nil || !strings.Contains(said.String(), want) {
				t.Errorf("ranks that cannot join ended with %v, want %s:\n%s", err, want, said)
			}
		})
	}
	t.Run("no NCCL", func(t *testing.T) {
		t.Setenv("BITNET1_NCCL", "/nowhere/libnccl.so.2")
		cmd, said := program(t, world(writeDataset(t, 16, proverbs()...), t.TempDir(), gpus(2))...)
		want := `devices "0,1": NCCL cannot be loaded: /nowhere/libnccl.so.2: `
		if err := cmd.Run(); err == nil || !strings.Contains(said.String(), want) {
			t.Errorf("two GPUs without NCCL ended with %v:\n%s", err, said)
		}
		trainWith(t, world(writeDataset(t, 16, proverbs()...), t.TempDir(), gpus(1))...)
	})
}

// lostGPUEndsTheStep kills ranks. Rank 0 keeps the steps before, unless the end of the other process takes the context
// of its GPU along: then the run goes on from the checkpoint before.
func lostGPUEndsTheStep(t *testing.T) {
	said := lostRanksEndTheStep(t, gpus, 2, []loss{
		{3, 1, syscall.SIGKILL, "rank 1 on cuda:1 was lost (signal: killed): the same command goes on"},
		{6, 1, syscall.SIGKILL, "rank 1 on cuda:1 was lost"},
		{20, 0, syscall.SIGKILL, ""},
		{25, 0, syscall.SIGINT, "paused"},
	})
	for l, said := range said {
		t.Logf("rank %d ended by %v: the steps before were kept: %t", l.rank, l.signal, strings.Contains(said, "msg=paused"))
	}
}
