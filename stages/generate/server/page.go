package server

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"net/http"
	"sync"
)

//go:embed page.html
var page []byte

// policy allows the page its own style and script, and requests to its server. Nothing that a model writes can be run.
var policy = sync.OnceValue(func() string {
	return fmt.Sprintf("default-src 'none'; connect-src 'self'; img-src data:; style-src %s; script-src %s; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", digestOf("style"), digestOf("script"))
})

// digestOf is the digest of the page's element of a name, as a policy has it.
func digestOf(element string) string {
	_, after, _ := bytes.Cut(page, []byte("<"+element+">"))
	text, _, _ := bytes.Cut(after, []byte("</"+element+">"))
	digest := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) + "'"
}

// servePage answers with the page to chat in. The page holds no secret: all that it does, it does by the API, with the
// token that its user gives.
func servePage(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy())
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(page)
}
