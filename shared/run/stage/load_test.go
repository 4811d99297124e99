package stage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

var load = flag.Bool("load", false, "measure what the event plane takes, and print it as Markdown")

// loadSize is how much a run of the load test has.
type loadSize struct {
	events    int // of one run
	jobs      int // of one run, each with an artifact
	parts     int // of one set
	consumers int // of one stream
	samples   int // of the time that a delivery takes
	rest      time.Duration
}

var (
	smallLoad = loadSize{events: 300, jobs: 60, parts: 60, consumers: 20, samples: 5, rest: time.Millisecond}
	fullLoad  = loadSize{events: 100_000, jobs: 10_000, parts: 10_000, consumers: 1001, samples: 300,
		rest: 50 * time.Millisecond}
)

func init() {
	flag.IntVar(&fullLoad.events, "load.events", fullLoad.events, "events of one run")
	flag.IntVar(&fullLoad.jobs, "load.jobs", fullLoad.jobs, "jobs of one run, each with an artifact")
	flag.IntVar(&fullLoad.parts, "load.parts", fullLoad.parts, "parts of one set")
	flag.IntVar(&fullLoad.consumers, "load.consumers", fullLoad.consumers, "consumers of one stream")
}

// TestLoad loads the event plane as runs do: a real event server that syncs every event, a real stage whose jobs do
// next to nothing, files on the disk of the temporary folder. Nothing may be lost or doubled, and goroutines and open
// files may not grow with the number of events. It asserts nothing about time. With -load it is large, and prints what
// it measures for docs/scale.md.
func TestLoad(t *testing.T) {
	size := smallLoad
	if *load {
		size = fullLoad
		fmt.Printf("%d processors.\n", runtime.NumCPU())
	}
	for _, c := range []struct {
		name string
		do   func(*testing.T, loadSize)
	}{{"reaction", loadReaction}, {"events", loadEvents}, {"jobs", loadJobs}, {"parts", loadParts},
		{"consumers", loadConsumers}} {
		t.Run(c.name, func(t *testing.T) { c.do(t, size) })
	}
}

func table(headings ...string) {
	if !*load {
		return
	}
	fmt.Printf("\n| %s |\n|%s\n", strings.Join(headings, " | "), strings.Repeat("---|", len(headings)))
}

func line(cells ...any) {
	if !*load {
		return
	}
	for _, c := range cells {
		fmt.Printf("| %v ", c)
	}
	fmt.Println("|")
}

func perSecond(n int, d time.Duration) string { return fmt.Sprintf("%.0f", float64(n)/d.Seconds()) }

// quantile is the value that the share p of durations does not exceed, in milliseconds.
func quantile(all []time.Duration, p float64) string {
	slices.Sort(all)
	return fmt.Sprintf("%.1f", all[min(int(p*float64(len(all))), len(all)-1)].Seconds()*1e3)
}

// source is a source with a number, in a run.
func source(t *testing.T, run string, i, count int) event.Envelope {
	t.Helper()
	name := fmt.Sprint("source", i)
	part := event.Part{}
	if count > 0 {
		part = event.Part{Index: i, Count: count}
	}
	e, err := event.New(run, "test", "", part,
		event.SourceAdded{Name: name, Digest: digest.Bytes([]byte(name))})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// each calls do for the numbers from first to last, 16 at a time.
func each(t *testing.T, first, last int, do func(i int) error) time.Duration {
	t.Helper()
	const workers = 16
	begun := time.Now()
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := first + worker; i < last; i += workers {
				if err := do(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begun)
}

// loadReaction announces events to a worker that has waited a while. It measures from before the announcement to the
// delivery.
func loadReaction(t *testing.T, size loadSize) {
	w := newHarness(t)
	queue, err := w.bus.Listen(t.Context(), bus.Listener{Stage: "idle", Run: "*", Kind: event.SourceAdded{}.Kind()})
	if err != nil {
		t.Fatal(err)
	}
	a := bus.NewAnnouncer(w.journal(), w.bus)
	table("reaction of an idle worker", "p50 ms", "p99 ms", "largest ms")
	for _, c := range []struct {
		what     string
		announce func(context.Context, event.Envelope) error
	}{
		{"announced on the server (synced)", w.bus.Publish},
		{"written to the journal and announced (both synced)", a.Announce},
	} {
		var all []time.Duration
		for i := range size.samples {
			delivered := make(chan error, 1)
			go func() { delivered <- takeOne(t.Context(), queue) }()
			time.Sleep(size.rest * time.Duration(2+i%5) / 2)
			begun := time.Now()
			err := c.announce(t.Context(), source(t, fmt.Sprint("r", len(c.what)), i, 0))
			if err := errors.Join(err, <-delivered); err != nil {
				t.Fatal(err)
			}
			all = append(all, time.Since(begun))
		}
		line(c.what, quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1))
	}
}

// takeOne waits for an event and acknowledges it.
func takeOne(ctx context.Context, q *bus.Queue) error {
	for ctx.Err() == nil {
		d, err := q.Next(ctx)
		if err != nil {
			return err
		}
		if d != nil {
			return d.Ack(ctx)
		}
	}
	return ctx.Err()
}

// loadEvents announces the events of one run by 16 announcers at once, and reads them back.
func loadEvents(t *testing.T, size loadSize) {
	w := newHarness(t)
	a := bus.NewAnnouncer(w.journal(), w.bus)
	table("events of one run", "announced a second since the row above", "memory of server and client MiB")
	before := 0
	for _, n := range []int{size.events / 10, size.events / 2, size.events} {
		spent := each(t, before, n, func(i int) error { return a.Announce(t.Context(), source(t, "r", i, size.events)) })
		line(n, perSecond(n-before, spent), resident(os.Getpid())>>20)
		before = n
	}
	table("reading the events of that run", "seconds", "memory held MiB")
	for _, c := range []struct {
		name string
		do   func() (kept any, events int, err error)
	}{
		{"journal.All", func() (any, int, error) {
			events, err := w.journal().All("r")
			return events, len(events), err
		}},
		{"bus.History", func() (any, int, error) {
			events, _, err := w.bus.History(t.Context(), "r", "*.*", 0)
			return events, len(events), err
		}},
		{"Announcer.Restore, nothing lost", func() (any, int, error) {
			a := bus.NewAnnouncer(w.journal(), w.bus)
			missing, err := a.Restore(t.Context(), "r")
			return a, size.events - missing, err
		}},
	} {
		empty := heap()
		begun := time.Now()
		kept, n, err := c.do()
		if err != nil || n != size.events {
			t.Errorf("%s: %d of %d events, %v", c.name, n, size.events, err)
		}
		spent := time.Since(begun)
		line(c.name, fmt.Sprintf("%.3f", spent.Seconds()), max(0, heap()-empty)>>20)
		runtime.KeepAlive(kept)
	}
}

func heap() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// resident is the memory of a process, in bytes.
func resident(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)) // none on other systems than Linux
	if fields := strings.Fields(string(b)); len(fields) > 1 {
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		return pages * int64(os.Getpagesize())
	}
	return 0
}

// loadJobs has a stage answer the events of one run, each by an artifact and an event.
func loadJobs(t *testing.T, size loadSize) {
	table("jobs of one run", "workers", "jobs a second since the row above", "memory of the stage MiB", "goroutines",
		"open files")
	for _, workers := range []int{1, 16} {
		w := newHarness(t)
		p := w.serveMeasured("shout", "--workers", strconv.Itoa(workers))
		done := 0
		var goroutines, files []float64
		for _, n := range []int{size.jobs / 10, size.jobs / 2, size.jobs} {
			each(t, done, n, func(i int) error { return w.bus.Publish(t.Context(), source(t, "r", i, 0)) })
			begun, before := time.Now(), done
			for done < n {
				time.Sleep(20 * time.Millisecond)
				p.mustGoOn()
				done = int(p.metric(`bitnet1_jobs_total{outcome="done",stage="shout"}`))
			}
			goroutines = append(goroutines, p.metric("go_goroutines"))
			files = append(files, p.metric("process_open_fds"))
			line(n, workers, perSecond(n-before, time.Since(begun)), resident(p.Process.Pid)>>20, slices.Max(goroutines),
				slices.Max(files))
		}
		for what, counts := range map[string][]float64{"goroutines": goroutines, "open files": files} {
			if most := counts[0] + 4*float64(workers) + 10; counts[2] > most { // some are of jobs at work
				t.Errorf("%s after %d jobs and after %d: %v", what, size.jobs/10, size.jobs, counts)
			}
		}
		answers, err := journal.Bodies[event.TokensWritten](w.journal(), "r")
		if err != nil || len(answers) != size.jobs {
			t.Errorf("%d answers to %d events, %v", len(answers), size.jobs, err)
		}
		w.answers("r", "shout", size.jobs)
		p.stop()
	}
}

// measured is a stage that shows its metrics.
type measured struct {
	*program
	address string
}

func (w *harness) serveMeasured(name string, args ...string) measured {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	return measured{w.serve(name, append(args, "--metrics", address, "--trace=", "--log-level", "error",
		"--ack-wait", "30s")...), address}
}

// metric reads a metric.
func (p measured) metric(name string) float64 {
	answer, err := http.Get("http://" + p.address + "/metrics")
	if err != nil {
		return 0 // it is not there yet
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for text := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(text, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// stop asks the stage to end, and closes what metric has left open.
func (p measured) stop() {
	p.t.Helper()
	http.DefaultClient.CloseIdleConnections()
	p.signal(syscall.SIGTERM)
	if status := p.status(); status != command.Done {
		p.t.Errorf("status %d: %s", status, p.log())
	}
}

// loadParts has a gathering stage answer the parts of one set: first all of them, then all of them once more, as after
// the start of a launcher.
func loadParts(t *testing.T, size loadSize) {
	w := newHarness(t)
	store, err := artifact.Open(w.data)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := artifact.Put(store, "text", "text/plain", "text", []byte("one text"))
	if err != nil {
		t.Fatal(err)
	}
	kind := event.TokensWritten{}.Kind()
	table("parts of one set", "gathered a second", "memory of the stage MiB")
	for _, count := range []int{size.parts / 10, size.parts} {
		run := fmt.Sprint("r", count)
		each(t, 0, count, func(i int) error {
			e, err := event.New(run, "shout", "", event.Part{Index: i, Count: count},
				event.TokensWritten{Source: fmt.Sprint("source", i), Batch: ref, Documents: int64(i)})
			return errors.Join(err, w.bus.Publish(t.Context(), e))
		})
		for _, what := range []string{"for the first time", "once more"} {
			p := w.serveMeasured("collect", "--run", run)
			begun, answered := time.Now(), 0.0
			for answered < float64(count) {
				time.Sleep(20 * time.Millisecond)
				p.mustGoOn()
				answered = p.metric(`bitnet1_jobs_total{outcome="done",stage="collect"}`) +
					p.metric(`bitnet1_jobs_total{outcome="waiting",stage="collect"}`)
			}
			line(fmt.Sprint(count, ", ", what), perSecond(count, time.Since(begun)), resident(p.Process.Pid)>>20)
			p.stop()
			if err := w.bus.Forget(t.Context(), bus.Listener{Stage: "collect", Run: run, Kind: kind}); err != nil {
				t.Fatal(err)
			}
		}
		if sealed, err := journal.Bodies[event.DatasetSealed](w.journal(), run); err != nil || len(sealed) != 1 ||
			sealed[0].Documents != int64(count) {
			t.Errorf("%d parts make %+v, %v", count, sealed, err)
		}
	}
}

// loadConsumers has many consumers of one stream, each with a worker that waits, and announces an event to one of them
// after the other.
func loadConsumers(t *testing.T, size loadSize) {
	w := newHarness(t)
	table("idle consumers", "made a second", "reaction p50 ms", "p99 ms", "memory of server and clients MiB", "goroutines")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	delivered := make(chan struct{}, size.consumers)
	there, announced := 0, 0
	for _, n := range []int{1, size.consumers / 10, size.consumers} {
		begun, first := time.Now(), there
		for ; there < n; there++ {
			q, err := w.bus.Listen(ctx, bus.Listener{Stage: "idle", Run: fmt.Sprint("r", there),
				Kind: event.SourceAdded{}.Kind()})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				for takeOne(ctx, q) == nil {
					delivered <- struct{}{}
				}
			})
		}
		made := time.Since(begun)
		time.Sleep(40 * size.rest)
		var all []time.Duration
		for i := range size.samples {
			begun := time.Now()
			if err := w.bus.Publish(ctx, source(t, fmt.Sprint("r", i*7919%n), announced, 0)); err != nil {
				t.Fatal(err)
			}
			announced++
			<-delivered
			all = append(all, time.Since(begun))
			time.Sleep(size.rest / 2)
		}
		line(n, perSecond(n-first, made), quantile(all, 0.5), quantile(all, 0.99), resident(os.Getpid())>>20,
			runtime.NumGoroutine())
	}
	begun := time.Now()
	cancel()
	wg.Wait()
	if err := w.bus.ForgetAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if *load {
		fmt.Printf("\n%d consumers were removed in %.1f s.\n", size.consumers, time.Since(begun).Seconds())
	}
}
