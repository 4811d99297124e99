package server_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/measure/runtest"
)

// thousand makes a thousand runs with logs of 10,000 lines each. Many runs share a log: to read them is the same work.
func thousand(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	const different = 8
	for i := range 1000 {
		r := runtest.Run{Name: fmt.Sprintf("v77-nano-%03d", i), Points: 10000, Checkpoints: 8, Finished: i > 0,
			Seed: uint64(i % different), Rate: 0.001 * float64(1+i%different), Started: 1.8e12 - int64(i)*1e6}
		if i >= different {
			of := fmt.Sprintf("v77-nano-%03d", i%different)
			r.Linked = of
		}
		runtest.Write(b, dir, r)
	}
	return dir
}

// BenchmarkThousandRuns opens the page of 1,000 runs in a browser. It must be painted within a second, and no message
// may be longer than 50 kB.
func BenchmarkThousandRuns(b *testing.B) {
	dir := thousand(b)
	for b.Loop() {
		s := serve(b, dir)
		page := openBrowser(b, 1400, 900)
		page.open(s.URL)
		since := func(what, done string) {
			page.until(done)
			b.ReportMetric(page.eval("performance.now()").(float64), what)
		}
		since("ms/first-rows", "document.querySelectorAll('.row').length > 10")
		b.ReportMetric(page.eval("performance.getEntriesByType('paint').at(-1).startTime").(float64), "ms/first-paint")
		since("ms/first-curve", "!!document.body.dataset.drawn")
		since("ms/all-rows", "document.querySelector('#count').textContent === '1000 of 1000 runs'")
		began := time.Now()
		page.eval("document.body.dataset.drawn = ''; document.querySelector('#all').click()")
		page.until("!!document.body.dataset.drawn")
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/1000-curves")
		b.ReportMetric(page.eval(`new Promise((done) => {
			const t = performance.now();
			document.querySelector("#logy").click();
			requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - t))); })`).(float64), "ms/redraw")
		b.ReportMetric(float64(longest(b, s.URL)), "B/longest-message")
		if status, err := os.ReadFile("/proc/self/status"); err == nil {
			_, peak, _ := strings.Cut(string(status), "VmHWM:")
			var kilobytes float64
			_, _ = fmt.Sscan(peak, &kilobytes)
			b.ReportMetric(kilobytes/1e3, "MB/peak")
		}
	}
}

// longest is the size of the longest message of both streams.
func longest(b *testing.B, url string) (bytes int) {
	listen(b, url+"/runs", func(m message) bool {
		bytes = max(bytes, len(m.data))
		return !strings.Contains(string(m.data), `"ready":true`)
	})
	numbers := make([]string, 1000)
	for i := range numbers {
		numbers[i] = fmt.Sprint(i)
	}
	of := strings.Join(numbers, ",")
	listen(b, url+"/curves?over=steps&y=train_bpc&y=rate&points=900&runs="+of, func(m message) bool {
		bytes = max(bytes, len(m.data))
		return m.event != "whole"
	})
	return bytes
}
