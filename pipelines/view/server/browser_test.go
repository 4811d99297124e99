package server_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"bitnet1/shared/processtest"
)

// browser is a headless Chromium with one page, driven over the pipes of its DevTools protocol.
type browser struct {
	t    testing.TB
	to   io.Writer
	page string // session

	mu       sync.Mutex
	last     int
	answers  map[int]chan answer
	problems []string // errors of the page
}

type answer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// openBrowser starts Chromium with a page of the given size. The test is skipped where there is no Chromium.
func openBrowser(t testing.TB, width, height int) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{os.Getenv("BITNET1_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	if program == "" {
		t.Skip("there is no Chromium (BITNET1_CHROMIUM, or chromium in the PATH): the page is not tested")
	}
	cmd := exec.Command(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	commands, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{commands, answers}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	commands.Close()
	answers.Close()
	b := &browser{t: t, to: to, answers: map[int]chan answer{}}
	t.Cleanup(func() {
		to.Close() // Chromium ends with its pipe
		_ = cmd.Wait()
	})
	go b.listen(from)
	target := b.call("Target.createTarget", map[string]any{"url": "about:blank"})
	session := b.call("Target.attachToTarget", map[string]any{"targetId": target["targetId"], "flatten": true})
	b.page = session["sessionId"].(string)
	b.call("Page.enable", nil)
	b.call("Runtime.enable", nil)
	b.resize(width, height)
	return b
}

// listen takes the answers, each of which ends with a zero.
func (b *browser) listen(from io.Reader) {
	lines := bufio.NewReader(from)
	for {
		text, err := lines.ReadBytes(0)
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(text[:len(text)-1], &a) != nil {
			continue
		}
		b.mu.Lock()
		if c := b.answers[a.ID]; c != nil && a.ID > 0 {
			c <- a
			delete(b.answers, a.ID)
		}
		if a.Method == "Runtime.exceptionThrown" ||
			a.Method == "Runtime.consoleAPICalled" && strings.Contains(string(a.Params), `"type":"error"`) {
			b.problems = append(b.problems, string(a.Params))
		}
		b.mu.Unlock()
	}
}

func (b *browser) call(method string, params map[string]any) (result map[string]any) {
	b.t.Helper()
	b.mu.Lock()
	b.last++
	answered := make(chan answer, 1)
	b.answers[b.last] = answered
	command := map[string]any{"id": b.last, "method": method, "params": params}
	if b.page != "" {
		command["sessionId"] = b.page
	}
	text, err := json.Marshal(command)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		b.t.Fatal(err)
	}
	select {
	case a := <-answered:
		if a.Error != nil {
			b.t.Fatalf("%s: %s", method, a.Error.Message)
		}
		_ = json.Unmarshal(a.Result, &result)
	case <-time.After(processtest.Patience):
		b.t.Fatalf("%s: the browser does not answer", method)
	}
	return result
}

func (b *browser) resize(width, height int) {
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1,
		"mobile": width < 600})
}

func (b *browser) open(url string) { b.call("Page.navigate", map[string]any{"url": url}) }

// eval is the value of an expression of JavaScript in the page.
func (b *browser) eval(expression string) any {
	b.t.Helper()
	r := b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true})
	if problem, ok := r["exceptionDetails"]; ok {
		b.t.Fatalf("%s: %v", expression, problem)
	}
	return r["result"].(map[string]any)["value"]
}

// until waits for an expression to be true.
func (b *browser) until(expression string) {
	b.t.Helper()
	for began := time.Now(); time.Since(began) < processtest.Patience; time.Sleep(20 * time.Millisecond) {
		if b.eval(expression) == true {
			return
		}
	}
	b.t.Fatalf("never true: %s\n%v\n%s", expression, b.problems, b.eval("document.body.innerText"))
}

// press presses keys, one after the other.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	codes := map[string]int{"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
		"Tab": 9, "End": 35, "Home": 36, " ": 32}
	for _, key := range keys {
		event := map[string]any{"type": "keyDown", "key": key, "windowsVirtualKeyCode": codes[key]}
		if len(key) == 1 {
			event["text"] = key
		}
		b.call("Input.dispatchKeyEvent", event)
		b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "windowsVirtualKeyCode": codes[key]})
	}
}

// write types a text.
func (b *browser) write(text string) { b.press(strings.Split(text, "")...) }

// click clicks on the element of a selector. The page is drawn anew between the two halves of the click, as it may be
// while a run goes on.
func (b *browser) click(selector string) {
	b.t.Helper()
	at, ok := b.eval(fmt.Sprintf(`(() => { const r = document.querySelector(%q)?.getBoundingClientRect();
		return r && {x: r.x + r.width / 2, y: r.y + r.height / 2}; })()`, selector)).(map[string]any)
	if !ok {
		b.t.Fatalf("there is no %s", selector)
	}
	for _, what := range []string{"mousePressed", "mouseReleased"} {
		b.eval("dispatchEvent(new Event('resize')), new Promise((r) => requestAnimationFrame(() => setTimeout(r, 20)))")
		b.call("Input.dispatchMouseEvent", map[string]any{"type": what, "x": at["x"], "y": at["y"], "button": "left",
			"clickCount": 1})
	}
}

// hover moves the mouse over an element, to a share of its width and height.
func (b *browser) hover(selector string, x, y float64) {
	b.t.Helper()
	at := b.eval(fmt.Sprintf(`(() => { const r = document.querySelector(%q).getBoundingClientRect();
		return {x: r.x + r.width * %g, y: r.y + r.height * %g}; })()`, selector, x, y)).(map[string]any)
	b.call("Input.dispatchMouseEvent", map[string]any{"type": "mouseMoved", "x": at["x"], "y": at["y"]})
}

// keep writes a picture of the page for people to look at, if BITNET1_SCREENSHOTS names a folder.
func (b *browser) keep(name string) {
	b.t.Helper()
	dir := os.Getenv("BITNET1_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture := b.call("Page.captureScreenshot", map[string]any{"format": "png"})
	raw, err := base64.StdEncoding.DecodeString(picture["data"].(string))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(dir+"/"+name+".png", raw, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
