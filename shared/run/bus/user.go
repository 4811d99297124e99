package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nkeys"

	"bitnet1/shared/run/event"
)

// User is who may connect to an event server, and the subjects that the server lets them use.
type User struct {
	Name      string   // of a stage, or one of those below; the name of the user's key file
	Publish   []string // nil: every subject
	Subscribe []string // nil: every subject

	// ByPassword is for a program whose client may know no nkeys: a Server gives the user a password in place of a key.
	ByPassword bool
}

// Users beside those of stages.
const (
	LauncherName = "launcher" // announces sources, makes streams and consumers: may do everything
	ViewerName   = "view"     // hears what stages report
)

// Launcher is the user of a launcher, who may do everything.
func Launcher() User { return User{Name: LauncherName} }

// Viewer is the user of a program that shows what stages report.
func Viewer() User {
	return User{
		Name:      ViewerName,
		Publish:   []string{api("STREAM.INFO", EventStream), api("STREAM.INFO", DeadStream)},
		Subscribe: []string{inboxes, progressSubject("*", "*")},
	}
}

// inboxes are where a server's answers go. That a user can hear those of others tells them no more than the events,
// which each may read; only the server may publish there.
const inboxes = "_INBOX.>"

// StageUser is the user of a stage that answers events of one kind and announces those of others, of the given runs;
// without runs, of those that the stage serves without naming them: every run. A stage that does not say what it
// announces (emits is nil) may announce any event.
//
// It may read every event, and take work from its own consumers alone.
func StageUser(stage, answers string, emits []string, runs ...string) User {
	u := User{Name: stage, Subscribe: []string{inboxes}, Publish: []string{
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", // clients in other languages ask for them
		api("STREAM.INFO", EventStream), api("STREAM.INFO", DeadStream), api("STREAM.MSG.GET", EventStream),
	}}
	if emits == nil {
		emits = []string{"*.*"}
	} else {
		emits = append(slices.Clone(emits), event.JobFinished{}.Kind())
	}
	if len(runs) == 0 {
		runs = []string{"*"}
	}
	for _, run := range runs {
		for _, kind := range emits {
			u.Publish = append(u.Publish, event.Subject(run, kind))
		}
		durable := Listener{Stage: stage, Run: run}.durable()
		u.Publish = append(u.Publish,
			deadSubject(run, stage, "*.*"), progressSubject(run, stage),
			api("CONSUMER.INFO", EventStream, durable),
			api("CONSUMER.CREATE", EventStream, durable, event.Subject(run, answers)),
			api("CONSUMER.MSG.NEXT", EventStream, durable),
			"$JS.ACK."+EventStream+"."+durable+".>",
			"$JS.ACK.*.*."+EventStream+"."+durable+".>", // as servers will have it that know several domains
		)
	}
	return u
}

func api(words ...string) string { return "$JS.API." + strings.Join(words, ".") }

// WriteKey makes the key of a user in the folder dir, unless the user has one there, and returns the public part. The
// file NAME.nk holds the seed, which nobody else may read.
func WriteKey(dir, user string) (public string, err error) {
	path := filepath.Join(dir, user+keyEnding)
	if seed, err := os.ReadFile(path); err == nil {
		key, err := nkeys.ParseDecoratedUserNKey(seed)
		if err != nil {
			return "", fmt.Errorf("%s holds no seed of a user's nkey: remove it, and a new one is made (%w)", path, err)
		}
		return key.PublicKey()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	key, err := nkeys.CreateUser()
	if err != nil {
		return "", err
	}
	seed, err := key.Seed()
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(append(seed, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return key.PublicKey()
}

// Configuration is the part of a nats-server's configuration that lets users in, by the public parts of their keys.
// Nothing in it is secret.
func Configuration(users []User, public map[string]string) string {
	var b strings.Builder
	b.WriteString("authorization {\n  users: [\n")
	for _, u := range users {
		fmt.Fprintf(&b, "    { # %s\n      nkey: %s\n", u.Name, public[u.Name])
		if u.Publish != nil || u.Subscribe != nil {
			fmt.Fprintf(&b, "      permissions: {\n        publish: { allow: [%s] }\n        subscribe: { allow: [%s] }\n"+
				"      }\n", list(u.Publish), list(u.Subscribe))
		}
		b.WriteString("    }\n")
	}
	b.WriteString("  ]\n}\n")
	return b.String()
}

func list(subjects []string) string {
	const indent = "\n          "
	var b strings.Builder
	for _, s := range subjects {
		b.WriteString(indent + strconv.Quote(s))
	}
	return b.String() + "\n        "
}
