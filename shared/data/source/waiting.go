package source

import (
	"cmp"
	"net/http"
	"time"
)

// silent is the time without an answer after which Client.Waiting is called.
const silent = 2 * time.Second

// told is a transport that reports which server it waits for.
func told(next http.RoundTripper, waiting func(host string)) http.RoundTripper {
	if waiting == nil {
		return next
	}
	return teller{cmp.Or(next, http.DefaultTransport), waiting}
}

type teller struct {
	next    http.RoundTripper
	waiting func(host string)
}

func (t teller) RoundTrip(r *http.Request) (*http.Response, error) {
	silence := time.AfterFunc(silent, func() { t.waiting(r.URL.Host) })
	defer silence.Stop()
	return t.next.RoundTrip(r)
}
