package bus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Address is where a NATS server is and what it wants to see. It is read from the environment, never from arguments,
// which other users could list. Most variables are those of NATS's own command line.
type Address struct {
	URL      string // NATS_URL, e.g. nats://127.0.0.1:4222; of a cluster several, with commas between them
	User     string // NATS_USER
	Password string // NATS_PASSWORD
	Token    string // NATS_TOKEN
	Creds    string // NATS_CREDS: path of a credentials file
	NKey     string // NATS_NKEY: path of a file with the seed of an nkey
	CA       string // NATS_CA: path of the certificate of who signs the server's; empty: the system's
	Cert     string // NATS_CERT: path of a certificate for the client, where the server wants one
	Key      string // NATS_KEY: path of that certificate's key
	Replicas string // NATS_REPLICAS: how many servers of a cluster have every event; empty: clusterReplicas
}

// variable is a variable of the environment and the field of an Address for it.
type variable struct {
	name  string
	field *string
}

func (a *Address) variables() []variable {
	return []variable{
		{"NATS_URL", &a.URL}, {"NATS_USER", &a.User}, {"NATS_PASSWORD", &a.Password}, {"NATS_TOKEN", &a.Token},
		{"NATS_CREDS", &a.Creds}, {"NATS_NKEY", &a.NKey}, {"NATS_CA", &a.CA}, {"NATS_CERT", &a.Cert}, {"NATS_KEY", &a.Key},
		{"NATS_REPLICAS", &a.Replicas},
	}
}

// AddressFrom reads an Address with the given getenv.
func AddressFrom(getenv func(string) string) Address {
	var a Address
	for _, v := range a.variables() {
		*v.field = getenv(v.name)
	}
	return a
}

// Environ is the inverse of AddressFrom, for child processes.
func (a Address) Environ() []string {
	var env []string
	for _, v := range a.variables() {
		if *v.field != "" {
			env = append(env, v.name+"="+*v.field)
		}
	}
	return env
}

// WithoutAddress is an environment without the variables that name an event server, for child processes.
func WithoutAddress(env []string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "NATS_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// keyEnding is that of files with the seed of an nkey.
const keyEnding = ".nk"

// For is the address for a process of another user: with that user's key, if one lies beside the key of a, and
// otherwise a itself.
func (a Address) For(user string) Address {
	if a.NKey == "" {
		return a
	}
	key := filepath.Join(filepath.Dir(a.NKey), user+keyEnding)
	if info, err := os.Stat(key); err == nil && info.Mode().IsRegular() {
		a.NKey = key
	}
	return a
}

// options are what the client needs to know beside the URL.
func (a Address) options() (options []nats.Option, err error) {
	for one := range strings.SplitSeq(a.URL, ",") {
		if _, err := url.Parse(strings.TrimSpace(one)); err != nil { // err would show a password in it
			return nil, errors.New("NATS_URL is no URL: want nats://HOST:PORT, with commas between those of a cluster")
		}
	}
	for name, path := range map[string]string{"NATS_CREDS": a.Creds, "NATS_NKEY": a.NKey, "NATS_CA": a.CA,
		"NATS_CERT": a.Cert, "NATS_KEY": a.Key} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if (a.Cert == "") != (a.Key == "") {
		return nil, errors.New("NATS_CERT and NATS_KEY belong together: set both, or none")
	}
	if a.User != "" {
		options = append(options, nats.UserInfo(a.User, a.Password))
	}
	if a.Token != "" {
		options = append(options, nats.Token(a.Token))
	}
	if a.Creds != "" {
		b, err := os.ReadFile(a.Creds)
		if err == nil {
			_, err = nkeys.ParseDecoratedUserNKey(b)
		}
		if err != nil {
			return nil, fmt.Errorf("NATS_CREDS: %s holds no credentials of a user (%w)", a.Creds, err)
		}
		options = append(options, nats.UserCredentials(a.Creds))
	}
	if a.NKey != "" {
		signed, err := nats.NkeyOptionFromSeed(a.NKey)
		if err != nil {
			return nil, fmt.Errorf("NATS_NKEY: %s holds no seed of a user's nkey (%w)", a.NKey, err)
		}
		options = append(options, signed)
	}
	if a.CA != "" {
		if b, err := os.ReadFile(a.CA); err != nil || !x509.NewCertPool().AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("NATS_CA: %s holds no certificate", a.CA)
		}
		options = append(options, nats.RootCAs(a.CA))
	}
	if a.Cert != "" {
		if _, err := tls.LoadX509KeyPair(a.Cert, a.Key); err != nil {
			return nil, fmt.Errorf("NATS_CERT and NATS_KEY: %s and %s are no certificate with its key (%w)", a.Cert, a.Key, err)
		}
		options = append(options, nats.ClientCert(a.Cert, a.Key))
	}
	return options, nil
}

var errNoAddress = errors.New("no event server: set NATS_URL (and NATS_NKEY, NATS_USER with NATS_PASSWORD, " +
	"NATS_TOKEN or NATS_CREDS where the server wants them), or let the launcher start one")
