package source

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// EnvCredentials is the environment variable in which a launcher gives its stages the URLs with their credentials, one
// a line.
const EnvCredentials = "BITNET1_SOURCE_URLS"

// maxCredentials limits EnvCredentials, in bytes. Linux takes 128 KiB for a variable.
const maxCredentials = 120 << 10

// Credentials map a URL as Shown has it to the URL with its user, password or signature. They are kept in memory and
// passed to other processes only in EnvCredentials: other users could read a file.
type Credentials map[string]string

// CredentialsFrom reads the variable.
func CredentialsFrom(getenv func(string) string) Credentials {
	c := Credentials{}
	for line := range strings.Lines(getenv(EnvCredentials)) {
		c.add(strings.TrimSpace(line))
	}
	return c
}

// add remembers a URL, if anything in it is secret.
func (c Credentials) add(location string) {
	if shown := Shown(location); shown != location {
		c[shown] = location
	}
}

// Environ is the variable EnvCredentials for another process, or nothing.
func (c Credentials) Environ() ([]string, error) {
	var all []string
	for _, location := range c {
		all = append(all, location)
	}
	slices.Sort(all)
	text := strings.Join(all, "\n")
	switch {
	case len(all) == 0:
		return nil, nil
	case len(text) > maxCredentials:
		return nil, fmt.Errorf("%d URLs with signatures or passwords are too many for one run (%d bytes of at most "+
			"%d): fetch the files first, or start several runs", len(all), len(text), maxCredentials)
	}
	return []string{EnvCredentials + "=" + text}, nil
}

// Shown is a location without its secrets: without user, password and the parameters that sign a URL. Locations that
// differ only in secrets are the same source.
func Shown(location string) string {
	scheme, rest, ok := strings.Cut(location, "://")
	if !ok {
		return location
	}
	u, err := url.Parse(location)
	if err != nil { // any part may be secret
		rest, _, _ = strings.Cut(rest[strings.LastIndexByte(rest, '@')+1:], "?")
		return scheme + "://" + rest
	}
	query := hideParameters(u.RawQuery)
	if u.User == nil && query == u.RawQuery {
		return location
	}
	u.User, u.RawQuery, u.ForceQuery = nil, query, false
	return u.String()
}

// hideParameters removes the secret parameters from a query. The rest stays as it is written.
func hideParameters(query string) string {
	parts := strings.Split(query, "&")
	signed := slices.ContainsFunc(parts, isSecret)
	kept := slices.DeleteFunc(parts, func(part string) bool {
		name, _, _ := strings.Cut(part, "=")
		return isSecret(part) || signed && slices.Contains(besideSignatures, strings.ToLower(name))
	})
	for i, part := range kept { // an endpoint=https://user:password@host
		name, value, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(value); err == nil && Shown(plain) != plain {
			kept[i] = name + "=" + url.QueryEscape(Shown(plain))
		}
	}
	return strings.Join(kept, "&")
}

// Words of a parameter's name that make it secret, whole names that are, and how the names of those begin that belong
// to a signature of Amazon, Google, Alibaba or Tencent.
var (
	secretWords = []string{"token", "secret", "password", "passwd", "pwd", "signature", "sig", "credential",
		"credentials", "apikey", "auth", "authorization", "jwt", "hmac"}
	secretNames = []string{"accesskey", "apikey", "accesskeyid", "awsaccesskeyid", "ossaccesskeyid",
		"googleaccessid", "keypairid", "sign", "pass"}
	signaturePrefix  = []string{"x-amz-", "x-goog-", "x-oss-", "x-cos-", "q-sign-", "q-key-", "q-header-", "q-url-"}
	besideSignatures = []string{ // what a signature by one of the above, or Azure's sig, is of: another one has others
		"expires", "expiry", "exp", "policy", "se", "st", "sp", "sv", "sr", "ss", "srt", "spr", "sip", "si", "ses",
		"sdd",
		"skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid",
	}
)

// letters finds the words of a name, also of one like authToken.
var letters = regexp.MustCompile(`[A-Z]?[a-z]+|[A-Z]+`)

// isSecret tells whether a part name=value of a query signs or unlocks the URL.
func isSecret(part string) bool {
	name, value, _ := strings.Cut(part, "=")
	if plain, err := url.QueryUnescape(name); err == nil {
		name = plain
	}
	lower := strings.ToLower(name)
	hasPrefix := func(prefix string) bool { return strings.HasPrefix(lower, prefix) }
	words := letters.FindAllString(name, -1)
	for i := range words {
		words[i] = strings.ToLower(words[i])
	}
	inWords := func(word string) bool { return slices.Contains(words, word) }
	return slices.ContainsFunc(signaturePrefix, hasPrefix) || slices.ContainsFunc(secretWords, inWords) ||
		slices.Contains(secretNames, strings.Join(words, "")) ||
		lower == "key" && len(value) >= 16 // a shorter one names an object
}

// urls finds the URLs in a text.
var urls = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>\x60]+`)

// hidden is an error without secrets, whatever library it comes from and wherever a redirect led.
type hidden struct{ error }

func (h hidden) Error() string { return urls.ReplaceAllStringFunc(h.error.Error(), Shown) }

func (h hidden) Unwrap() error { return h.error }

// parse parses a URL. Its error contains nothing of the URL.
func parse(location string) (*url.URL, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, permanent{errors.New("this is no URL: write what is special in it with %, such as %40 for @ in a " +
			"password")}
	}
	return u, nil
}

// origin is the scheme, host and port that a secret belongs to.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// redirected decides about a redirect. Secrets are not sent to another scheme, host or port, nor back to the first one.
// The address that a signed URL redirects to does not learn the signed URL.
func redirected(to *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("the server redirects without end")
	}
	to.Header.Del("Referer")
	first := origin(via[0].URL)
	for _, r := range append(via[1:len(via):len(via)], to) {
		if origin(r.URL) != first {
			to.Header.Del("Authorization")
			to.Header.Del("X-Amz-Security-Token")
		}
	}
	return nil
}

// careful returns a client that sends secrets only where they belong. It uses the transport of from, if from is not
// nil.
func careful(from *http.Client) *http.Client {
	if from == nil {
		from = http.DefaultClient
	}
	own := *from
	own.CheckRedirect = redirected
	return &own
}
