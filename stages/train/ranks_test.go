package main

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/processtest"
)

// processors are the devices of so many ranks.
func processors(ranks int) string { return strings.TrimSuffix(strings.Repeat("cpu,", ranks), ",") }

// world are the flags of a training on devices, with steps of eight micro-batches.
func world(manifest, out, devices string, recipe ...string) []string {
	return small(manifest, out, append(strings.Fields("--gradient-sums fixed --batch-tokens 128 --micro-tokens 16"+
		" --steps 40 --threads 1 --devices "+devices), recipe...)...)
}

// Worlds of 1, 2, 4 and 8 ranks end with the same files, and so does a run that goes from each of these numbers to each
// other one.
func TestNumberOfDevicesDoesNotMatter(t *testing.T) {
	numberOfDevicesDoesNotMatter(t, processors, []int{2, 4, 8}, []int{1, 2, 1, 4, 1, 8, 2, 4, 2, 8, 4, 8})
}

// numberOfDevicesDoesNotMatter compares worlds of so many ranks with one rank, and with a run that goes through others.
func numberOfDevicesDoesNotMatter(t *testing.T, devices func(ranks int) string, worlds, changing []int) {
	t.Helper()
	manifest := writeDataset(t, 16, proverbs()...)
	for name, recipe := range map[string]string{
		"v76": "--grad-bits 4 --sequence-start 8",
		"v77": "--stream-bits 4 --hidden-bits 4 --query-bits 2 --value-bits 4 --read-bits 3 --codebook-bits 2 " +
			"--grad-bits 4 --weight-grad-bits 8 --optimizer muon",
		"truebit": "--truebit --flip-threshold 4",
	} {
		t.Run(name, func(t *testing.T) {
			recipe := strings.Fields(recipe)
			one, last := t.TempDir(), t.TempDir()
			trainWith(t, world(manifest, one, devices(1), recipe...)...)
			for _, ranks := range worlds {
				dir := t.TempDir()
				trainWith(t, world(manifest, dir, devices(ranks), recipe...)...)
				sameFiles(t, one, dir, []string{fmt.Sprint(ranks, " ranks")})
			}
			var how []string
			for i, ranks := range changing {
				how = append(how, stopAtStep(t, 3*i+3, world(manifest, last, devices(ranks), recipe...)))
			}
			trainWith(t, world(manifest, last, devices(1), recipe...)...)
			sameFiles(t, one, last, how)
		})
	}
}

func stopAtStep(t *testing.T, step int, flags []string) string {
	t.Helper()
	how, _ := stopAt(t, step, 0, "", flags)
	return how
}

// A rank that is killed in a step ends the step on all ranks, and none stays behind; the same command goes on from the
// step before, and ends with the bytes of a run that was not disturbed. So it does when rank 0 is killed, or asked to
// stop.
func TestALostRankEndsTheStep(t *testing.T) {
	said := lostRanksEndTheStep(t, processors, 4, []loss{
		{3, 2, syscall.SIGKILL, "rank 2 on cpu was lost (signal: killed): the same command goes on"},
		{6, 1, syscall.SIGKILL, "rank 1 on cpu was lost"},
		{10, 3, syscall.SIGKILL, "rank 3 on cpu was lost"},
		{20, 0, syscall.SIGKILL, ""},
		{25, 0, syscall.SIGINT, "paused"},
	})
	for l, said := range said {
		if l.rank > 0 && !strings.Contains(said, "msg=paused") {
			t.Errorf("the steps of a training whose rank %d was lost were not kept:\n%s", l.rank, said)
		}
	}
}

// loss is the end of a rank by a signal after a step, and what the program says of it.
type loss struct {
	step, rank int
	signal     syscall.Signal
	says       string
}

// lostRanksEndTheStep lets a training on so many devices lose ranks, one after the other, and returns what it said each
// time. It fails unless each loss ends all processes, and the bytes at the end are those of one device.
func lostRanksEndTheStep(t *testing.T, devices func(ranks int) string, ranks int, losses []loss) map[loss]string {
	t.Helper()
	manifest := writeDataset(t, 16, proverbs()...)
	whole, dir := t.TempDir(), t.TempDir()
	trainWith(t, world(manifest, whole, devices(1))...)
	flags, all := world(manifest, dir, devices(ranks)), map[loss]string{}
	for _, l := range losses {
		pids, said := signalRank(t, dir, flags, ranks, l)
		if !strings.Contains(said, l.says) {
			t.Errorf("rank %d ended by %v after step %d, and the program said %s", l.rank, l.signal, l.step, said)
		}
		all[l] = said
		for _, pid := range pids {
			awaitEnd(t, pid)
		}
	}
	trainWith(t, flags...)
	sameFiles(t, whole, dir, []string{"lost ranks"})
	return all
}

var rankLine = regexp.MustCompile(`msg=rank .*rank=(\d+) .*pid=(\d+)`)

// signalRank runs the program, and sends a signal to one of its ranks when a step is in the log. It returns the
// processes of the other ranks, and what the program said.
func signalRank(t *testing.T, dir string, flags []string, ranks int, l loss) ([]int, string) {
	t.Helper()
	step, rank, signal := l.step, l.rank, l.signal
	cmd, _ := program(t, flags...)
	let := hold(t, cmd, step)
	var said processtest.Output
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for want := []byte(fmt.Sprintf(`"step":%d,`, step)); ; {
		if b, _ := os.ReadFile(filepath.Join(dir, "train.jsonl")); bytes.Contains(b, want) {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the program ended before step %d: %v\n%s", step, err, said.String())
		case <-time.After(time.Millisecond):
		}
	}
	processtest.Eventually(t, func() bool { // what it has said comes later than what it has logged
		return len(rankLine.FindAllString(said.String(), -1)) == ranks-1
	}, "the processes of %d ranks", ranks)
	pids := []int{cmd.Process.Pid}
	for _, m := range rankLine.FindAllStringSubmatch(said.String(), -1) {
		pid, err := strconv.Atoi(m[2])
		if err != nil || m[1] != fmt.Sprint(len(pids)) {
			t.Fatalf("%s is no process of rank %d", m[0], len(pids))
		}
		pids = append(pids, pid)
	}
	if err := syscall.Kill(pids[rank], signal); err != nil {
		t.Fatal(err)
	}
	let()
	if err := <-ended; err == nil || rank > 0 && strings.Contains(err.Error(), "signal") {
		t.Errorf("the program ended with %v after rank %d was ended at step %d", err, rank, step)
	}
	return pids[1:], said.String()
}

// awaitEnd waits until a process is no more.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	processtest.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, "the end of process %d, a rank", pid)
}

// What cannot be is refused before there is anything of the training.
func TestDevicesThatCannotTrain(t *testing.T) {
	manifest := writeDataset(t, 16, proverbs()...)
	for _, c := range []struct{ flags, says string }{
		{"--devices cpu,cpu --gradient-sums float", "use --gradient-sums fixed"},
		{"--devices cpu,cpu --device cpu", "--device and --devices exclude each other"},
		{"--devices cpu,tpu", `"tpu" is no device`},
		{"--devices 0,0", ""}, // no GPU, or twice the same
		{"--devices cpu,cpu --batch-tokens 32 --micro-tokens 32", "use --micro-tokens 16"},
		{"--devices cpu,cpu,cpu --batch-tokens 128 --micro-tokens 64", "2 micro-batches, too few for 3 devices"},
		{"--devices " + strings.Repeat("cpu,", 64) + "cpu", "want at most 64"},
		{"--batch-tokens 4112 --micro-tokens 16", "at most 256 micro-batches: a step of 4112 tokens is 257"},
		{"--gradient-sums double", `gradient_sums is "double"`},
	} {
		dir := filepath.Join(t.TempDir(), "out")
		flags := append([]string{"--gradient-sums", "fixed"}, strings.Fields(c.flags)...)
		cmd, said := program(t, small(manifest, dir, flags...)...)
		if err := cmd.Run(); err == nil || !strings.Contains(said.String(), c.says) {
			t.Errorf("%s: %v, %s, want %s", c.flags, err, said, c.says)
		}
		if _, err := os.Stat(filepath.Join(dir, "train.jsonl")); err == nil {
			t.Errorf("%s: a training has begun", c.flags)
		}
	}
}

// The launcher learns from describe --check, before any stage runs, what devices cannot train.
func TestDescribeChecksDevices(t *testing.T) {
	for devices, fits := range map[string]bool{"cpu,cpu": false, "cpu": true, "": true, "cpu,": false} {
		cmd, said := program(t)
		cmd.Args = []string{cmd.Path, "describe", "--check"}
		cmd.Env = append(cmd.Env, "BITNET1_DEVICES="+devices)
		cmd.Stdin = strings.NewReader("{}")
		if err := cmd.Run(); (err == nil) != fits {
			t.Errorf("BITNET1_DEVICES=%s and default parameters: %v\n%s", devices, err, said)
		}
	}
}

// A rank that fails says why, and rank 0 repeats it.
func TestLostRankSaysWhy(t *testing.T) {
	r := &ranks{devices: []string{"cpu", "cpu"}}
	for i := range r.ring {
		a, b, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		if r.ring[i], err = net.FileConn(a); err != nil {
			t.Fatal(err)
		}
	}
	next, prior, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("BITNET1_TEST_AS_PROGRAM", "1")
	p, err := startPeer(1, "cpu", next, prior)
	if err != nil {
		t.Fatal(err)
	}
	r.peers = []*peer{p}
	if err := r.tell(order{}); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	err = r.lost(errors.New("the ring ended"))
	var unfit interface{ Unfit() bool }
	if !errors.As(err, &unfit) || !unfit.Unfit() || !strings.Contains(err.Error(), "an order that this program does not") {
		t.Errorf("the rank's end gave %v", err)
	}
}

// A rank that still computes has orders waiting, and learns at once that rank 0 has ended.
func TestRankEndsWhileOrdersWait(t *testing.T) {
	var orders bytes.Buffer
	out := gob.NewEncoder(&orders)
	for range 2 {
		if err := out.Encode(order{Share: &share{}}); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan struct{})
	listen(&orders, func() { close(ended) })
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the end is not noticed while two orders wait")
	}
}
