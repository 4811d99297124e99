// Package bustest connects tests to an event server as a stage in another language does: without package bus. It also
// starts clusters of event servers that tests can break.
package bustest

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Connect connects for the length of the test. The user is empty where the server wants none.
func Connect(t *testing.T, url, user, password string) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url, nats.UserInfo(user, password))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
