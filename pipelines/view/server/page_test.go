package server_test

import (
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitnet1/pipelines/view/index"
	"bitnet1/pipelines/view/server"
	"bitnet1/shared/measure/runtest"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
)

// pageOf opens the page of a data directory with some runs.
func pageOf(t *testing.T, width, height int) (b *browser, dir string, s *httptest.Server) {
	t.Helper()
	b, dir = openBrowser(t, width, height), t.TempDir()
	for i := range 12 {
		r := runtest.Run{Name: fmt.Sprintf("v77-nano-%02d", i), Points: 100, Checkpoints: 2, Finished: true, Seed: uint64(i),
			Rate: 0.001 * float64(1+i%3), Started: 1.7e12 + int64(i)*1e6}
		runtest.Write(t, dir, r)
	}
	latest := made
	latest.Started = 1.8e12
	runtest.Write(t, dir, latest)
	crashed := made
	crashed.Name, crashed.Started = "killed", 1.75e12
	runtest.Write(t, dir, crashed)
	if _, err := overview.Mark(journal.Open(dir), crashed.Name); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Minute) // so that it is the one that changed last
	if err := os.Chtimes(filepath.Join(dir, "runs", made.Name, "events"), later, later); err != nil {
		t.Fatal(err)
	}
	s = serve(t, dir)
	b.open(s.URL)
	b.until("!!document.body?.dataset.drawn && !!document.querySelector('#run .stages') && " +
		"document.querySelector('#count').textContent === '14 of 14 runs'")
	return b, dir, s
}

// points are how many points the page has of the loss of a run.
func points(run int) string {
	return fmt.Sprintf("import('./chart.js').then((m) => m.view.curves.get(%d)?.lines.train_bpc.x.length ?? 0)", run)
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	text, _ := b.eval(fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)).(string)
	return text
}

func (b *browser) wants(selector string, words ...string) {
	b.t.Helper()
	for _, word := range words {
		if text := b.text(selector); !strings.Contains(text, word) {
			b.t.Errorf("%s does not show %q:\n%s", selector, word, text)
		}
	}
}

// The page shows the latest run, its stages, checkpoints, heads and texts, and what happens to it meanwhile.
func TestPage(t *testing.T) {
	b, dir, s := pageOf(t, 1400, 900)
	b.wants("#run h2", made.Name)
	b.wants(".stages", "train", "evaluate", "0 of 2", "step 1000 of 2000")
	b.wants("#run-tables", "checkpoint", "IPMR", "1000", "best")
	b.wants("#run-heads", "500", "1000", "random key 8.0 %")
	b.until("document.querySelector('#run-texts').innerText.includes('<b>One bit</b> & another.')") // and no bold text
	b.wants("#run-texts", "It was the best of times, it was the 1000th step of times.")
	b.wants("#list", "killed", "crashed", "paused", "finished", "learning_rate 0.003")
	if n := b.eval(points(0)); n != 100.0 {
		t.Errorf("%v points of the curve, want 100", n)
	}
	grow(t, dir)
	b.until(points(0) + ".then((n) => n === 101)")
	b.until("document.querySelector('.stages').innerText.includes('step 1010 of 2000')")
	b.hover("#loss canvas", 0.5, 0.5)
	b.until("document.querySelector('#loss .tip').innerText.includes('run-1')")
	b.keep("page")

	for _, file := range []string{"missing", "events"} { // a run that is removed
		_ = os.RemoveAll(filepath.Join(dir, "runs", "killed", file))
	}
	if err := os.RemoveAll(filepath.Join(dir, "runs", "killed")); err != nil {
		t.Fatal(err)
	}
	b.until("!document.querySelector('#list').innerText.includes('killed')")

	address := s.Listener.Addr().String()
	s.CloseClientConnections()
	s.Close()
	b.until("!document.querySelector('#lost').hidden")
	serveAt(t, dir, address) // another program, for the next run say
	b.until("document.querySelector('#lost').hidden && document.querySelector('#count').textContent === '13 of 13 runs'")
	b.until("document.querySelector('#run h2').innerText === 'run-1'")
	if len(b.problems) > 0 {
		t.Errorf("the page has errors: %v", b.problems)
	}
}

func serveAt(t *testing.T, dir, address string) {
	t.Helper()
	x, err := index.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(server.New(x, "here:data"))
	s.Listener.Close()
	if s.Listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
}

// A page that is opened before the first run has begun shows the run as soon as it has.
func TestPageWithoutRuns(t *testing.T) {
	b, dir := openBrowser(t, 1400, 900), t.TempDir()
	b.open(serve(t, dir).URL)
	b.until("!!document.querySelector('#list')?.innerText.includes('There are no runs yet')")
	runtest.Write(t, dir, made)
	b.until("document.querySelector('#run h2')?.innerText === 'run-1' && !!document.body.dataset.drawn")
}

// The page shows the latest of many runs, although the server speaks of those first whose files changed last.
func TestPageShowsTheLatestOfManyRuns(t *testing.T) {
	b, dir := openBrowser(t, 1400, 900), t.TempDir()
	for i := range 90 {
		runtest.Write(t, dir, runtest.Run{Name: fmt.Sprintf("run-%02d", i), Points: 5, Finished: true,
			Started: 1.7e12 + int64(i)*1e6})
		at := time.Unix(1.7e9+int64(100-i), 0)
		if err := os.Chtimes(filepath.Join(dir, "runs", fmt.Sprintf("run-%02d", i), "events"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	b.open(serve(t, dir).URL)
	b.until("document.querySelector('#count')?.textContent === '90 of 90 runs' && !!document.body.dataset.drawn")
	b.until("document.querySelector('#run h2')?.innerText === 'run-89'")
	b.until("document.querySelectorAll('#table tbody tr').length === 1")
}

// Everything can be done with the keys alone.
func TestPageByKeys(t *testing.T) {
	b, _, _ := pageOf(t, 1400, 900)
	b.press("Tab") // goes into the page, and not into the list
	b.until("document.activeElement.id === 'theme'")
	b.eval("document.activeElement.blur()")
	b.press("ArrowDown", "Enter") // nothing has the focus
	b.until("document.querySelector('#run h2').innerText === 'killed'")
	b.press("ArrowUp", "Enter")
	b.until("document.querySelector('#run h2').innerText === 'run-1'")
	b.press("/")
	b.write("learning_rate=0.003 finished")
	b.until("document.querySelector('#count').textContent === '4 of 14 runs'")
	b.press("Enter")
	b.until("document.activeElement.id === 'list'")
	b.press("ArrowDown", " ", "ArrowDown", " ")
	b.until("document.querySelectorAll('.row[aria-selected=true]').length === 2")
	b.until("document.querySelectorAll('#table tbody tr').length === 3") // and the one before
	b.wants("#parameters", "seed", "train.learning_rate", "0.002", "0.003")
	b.press("Enter")
	b.until("document.querySelector('#run h2').innerText.startsWith('v77-nano')")
	if opened := b.text("#run h2"); b.text(".row.cursor .name") != opened {
		t.Errorf("%s is open, and the cursor is at %s", opened, b.text(".row.cursor .name"))
	}
	b.press("Escape")
	b.until("document.querySelector('#count').textContent === '14 of 14 runs'")
	b.press("x")
	b.until("document.body.dataset.drawn.includes('over=tokens')")
	b.press("x")
	b.until("document.body.dataset.drawn.includes('over=seconds')")
	b.press("l")
	b.until("document.querySelector('#logy').checked")
	b.eval("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))") // it is drawn
	b.eval("document.querySelector('#loss canvas').focus()")
	b.press("ArrowRight", "ArrowRight")
	b.until("/v77-nano-\\d+ [0-9.]+/.test(document.querySelector('#loss [role=status]').textContent)")
	b.press("+")
	b.until("!document.querySelector('#reset').hidden")
	b.press("0")
	b.until("document.querySelector('#reset').hidden")
	b.eval("document.querySelector('.strip').focus()")
	b.press("ArrowLeft")
	b.until("document.querySelector('#run-heads .large').innerText.includes('step 500')")
	before := b.eval("document.documentElement.dataset.theme")
	b.press("t")
	if after := b.eval("document.documentElement.dataset.theme"); after == before {
		t.Errorf("the theme is %v as before", after)
	}
	b.keep("keys")
	b.press("?")
	b.until("document.querySelector('#help').open")
	b.press("Escape")
	b.until("!document.querySelector('#help').open")

	b.open(b.eval("location.href").(string)) // the address remembers what is looked at
	b.call("Page.reload", nil)
	b.until("!!document.body?.dataset.drawn?.includes('over=seconds') && " +
		"document.querySelectorAll('#table tbody tr').length === 3 && document.querySelector('#logy').checked")
	if len(b.problems) > 0 {
		t.Errorf("the page has errors: %v", b.problems)
	}
}

// On a phone one view is seen at a time, and nothing is wider than the screen.
func TestPageOnAPhone(t *testing.T) {
	b, _, _ := pageOf(t, 390, 844)
	fits := func(view string) {
		t.Helper()
		b.keep("phone-" + view)
		if w := b.eval("document.documentElement.scrollWidth"); w.(float64) > 390 {
			t.Errorf("%s is %v pixels wide", view, w)
		}
	}
	fits("runs")
	b.click(".row .name")
	b.until("document.body.dataset.view === 'run' && document.querySelector('#run').offsetHeight > 300")
	fits("run")
	for _, view := range []string{"curves", "results", "runs"} {
		b.click("nav [data-view=" + view + "]")
		b.until(fmt.Sprintf("document.querySelector('#%s').offsetHeight > 40", view))
		b.until("document.querySelector('#run').offsetHeight === 0")
		fits(view)
	}
	if len(b.problems) > 0 {
		t.Errorf("the page has errors: %v", b.problems)
	}
}

// Runs are grouped and coloured by a parameter, and all of them are compared with one click.
func TestPageGroups(t *testing.T) {
	b, _, _ := pageOf(t, 1400, 900)
	b.eval(`(() => {
		const s = document.querySelector("#group");
		s.value = "train.learning_rate";
		s.dispatchEvent(new Event("change"));
	})()`)
	b.until("[...document.querySelectorAll('.heading')].map((h) => h.innerText).join() === " +
		"'learning_rate: 0.001 (4),learning_rate: 0.002 (6),learning_rate: 0.003 (4)'")
	b.click("#all")
	b.until("document.querySelectorAll('#table tbody tr').length === 14")
	b.until("import('./chart.js').then((m) => m.view.chosen.length === 14 && " +
		"new Set(m.view.chosen.map((c) => c.color)).size === 3)")
	b.until("import('./chart.js').then((m) => m.view.curves.size === 14)")
	b.keep("groups")
	b.click("#table th:nth-child(4) button")
	b.until("document.querySelector('#table th:nth-child(4)').getAttribute('aria-sort') === 'ascending'")
	b.click("#none")
	b.until("document.querySelectorAll('#table tbody tr').length === 0")
}
