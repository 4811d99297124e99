package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestShown(t *testing.T) {
	for location, want := range map[string]string{
		"books/a?token=1":                  "books/a?token=1", // a path
		"https://host/a.jsonl":             "https://host/a.jsonl",
		"https://host/a?part=7&author=ann": "https://host/a?part=7&author=ann",
		"https://host/a?b=%zz&c=1":         "https://host/a?b=%zz&c=1",
		"https://ann:pw@host/a":            "https://host/a",
		"https://token@host:8080/a?x=1":    "https://host:8080/a?x=1",
		"https://host/a?X-Amz-Algorithm=A&X-Amz-Date=2&x-amz-signature=3&versionId=4": "https://host/a?versionId=4",
		"https://host/a?X-Goog-Signature=1&X-Goog-Expires=2":                          "https://host/a",
		// Azure
		"https://b/c?sp=r&st=1&se=2&sv=3&sr=b&sig=x%2By&page=1": "https://b/c?page=1",
		// no signature, so these say something else
		"https://host/a?st=1&se=2":                                           "https://host/a?st=1&se=2",
		"https://host/a?AWSAccessKeyId=k&Signature=s&Expires=9":              "https://host/a",
		"https://host/a?Policy=p&Key-Pair-Id=k&Signature=s":                  "https://host/a",
		"https://host/a?Expires=9":                                           "https://host/a?Expires=9",
		"https://host/a?access_token=1&api-key=2&apiKey=3&authToken=4&SIG=5": "https://host/a",
		"https://host/a?key=part3":                                           "https://host/a?key=part3",
		"https://host/a?key=AIzaSyA0123456789abcdef":                         "https://host/a",
		"https://u:p w@host/a?sig=1":                                         "https://host/a",
		"https://u:p?w@host/a":                                               "https://host/a",
		"hf://datasets/me/web@v2/a.parquet":                                  "hf://datasets/me/web@v2/a.parquet",
		"s3://KEY:SECRET@shelf/a?region=x":                                   "s3://shelf/a?region=x",
		"s3://shelf/a?endpoint=http%3A%2F%2Fk%3As%40minio%3A9000&region=x": "s3://shelf/a" +
			"?endpoint=http%3A%2F%2Fminio%3A9000&region=x",
	} {
		if got := Shown(location); got != want {
			t.Errorf("%s: %s, want %s", location, got, want)
		}
		if got := Shown(Shown(location)); got != want {
			t.Errorf("%s, shown twice: %s", location, got)
		}
		said := hidden{fmt.Errorf(`Get "%s": dial`, location)}.Error()
		if !strings.Contains(location, " ") && said != `Get "`+want+`": dial` {
			t.Errorf("an error says %s", said)
		}
	}
}

// TestTokenStaysWithTheHub: neither a redirect nor a further page of a list takes the token to another scheme, host or
// port.
func TestTokenStaysWithTheHub(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{} // path of a request elsewhere -> what it had
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.URL.Path] = r.Header.Get("Authorization") + r.Header.Get("Referer")
		mu.Unlock()
		switch r.URL.Path {
		case "/page2":
			fmt.Fprint(w, `[{"type":"file","path":"b.jsonl","size":3,"oid":"1"}]`)
		case "/back":
			http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
		default:
			fmt.Fprint(w, "abc")
		}
	})
	var endpoint string
	returned := "not asked"
	endpoint = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/returned":
			returned = r.Header.Get("Authorization")
			fmt.Fprint(w, "abc")
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "/tree/") && r.URL.Query().Get("cursor") == "":
			// relative, of the same server
			w.Header().Set("Link", "<"+r.URL.Path+`?recursive=true&cursor=2>; rel="next"`)
			fmt.Fprint(w, `[]`)
		case strings.Contains(r.URL.Path, "/tree/"):
			w.Header().Set("Link", "<"+elsewhere+`/page2>; rel="next"`)
			fmt.Fprint(w, `[{"type":"file","path":"a.jsonl","size":3,"oid":"1"}]`)
		case strings.HasSuffix(r.URL.Path, "a.jsonl"):
			http.Redirect(w, r, elsewhere+"/a?sig=cdnsecret", http.StatusFound)
		default:
			http.Redirect(w, r, elsewhere+"/back?to="+url.QueryEscape(endpoint+"/returned"), http.StatusFound)
		}
	})
	c := quick()
	c.Getenv = func(name string) string {
		return map[string]string{"HF_TOKEN": "secret", "HF_ENDPOINT": endpoint}[name]
	}
	found, err := c.Find(context.Background(), "hf://datasets/me/web/*.jsonl")
	if err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	for i, o := range found {
		o.Version = ""
		mustFetch(t, c, o, filepath.Join(t.TempDir(), fmt.Sprint(i)), []byte("abc"))
	}
	for _, path := range []string{"/page2", "/a", "/back"} {
		if had, asked := seen[path]; !asked || had != "" {
			t.Errorf("%s: asked %v, with %q", path, asked, had)
		}
	}
	if returned != "" {
		t.Errorf("after a way over another server the hub is asked with %q", returned)
	}
}

// TestSignedURL: a URL that is signed for GET alone is found and fetched, under a name without the signature, which
// another signature has as well. Errors do not tell it, wherever they come from.
func TestSignedURL(t *testing.T) {
	data := contents(5000)
	valid := "one"
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Query().Get("sig") != valid {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		serveFile(w, r, data)
	}) + "/a.jsonl"
	path := filepath.Join(t.TempDir(), "a")
	var first Object
	for _, valid = range []string{"one", "two"} {
		c := quick()
		o := one(t, c, address+"?se=9&sig="+valid)
		if o.URL != address || o.Size != 5000 {
			t.Errorf("%+v", o)
		}
		if first.URL != "" && o.Digest() != first.Digest() {
			t.Error("another signature is another source")
		}
		first = o
		env, err := c.Credentials.Environ()
		if err != nil || len(env) != 1 {
			t.Fatal(env, err)
		}
		os.Remove(path)
		other := quick() // in another process
		other.Credentials = CredentialsFrom(func(name string) string { return strings.TrimPrefix(env[0], name+"=") })
		mustFetch(t, other, o, path, data)
	}
	os.Remove(path)
	if err := quick().Fetch(context.Background(), first, path, nil); err == nil || !Permanent(err) ||
		!strings.Contains(err.Error(), EnvCredentials) {
		t.Errorf("without the signature: %v", err)
	}
	for _, location := range []string{
		address + "?sig=stalesecret", "http://127.0.0.1:1/x?sig=stalesecret", "https://ann:stalesecret@127.0.0.1:1/x",
		"https://a:stale secret@host/x",
		"ftp://ann:stalesecret@host/x", "s3://KEY:stalesecret@shelf/x", "https://ann:stalesecret%zz@host/x",
		serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/x?X-Amz-Signature=stalesecret", http.StatusFound)
		}) + "/x",
	} {
		c := quick()
		c.Retries = 1
		c.Retrying = func(err error, _ time.Duration) {
			if strings.Contains(err.Error(), "stalesecret") {
				t.Errorf("a retry tells %v", err)
			}
		}
		if _, err := c.Find(context.Background(), location); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}

func TestTooManyCredentials(t *testing.T) {
	c := Credentials{}
	for i := range 3000 {
		c.add(fmt.Sprintf("https://host/%d?sig=%s", i, strings.Repeat("x", 100)))
	}
	if _, err := c.Environ(); err == nil {
		t.Error("they are taken")
	}
	if env, err := (Credentials{}).Environ(); env != nil || err != nil {
		t.Error(env, err)
	}
}

// TestBucketRedirect: what a bucket's server redirects to learns nothing of the keys.
func TestBucketRedirect(t *testing.T) {
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden",
		"AWS_SESSION_TOKEN": "session", "AWS_EC2_METADATA_DISABLED": "true"} {
		t.Setenv(name, value)
	}
	asked, had := false, ""
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked, had = true, r.Header.Get("Authorization")+r.Header.Get("X-Amz-Security-Token")
		w.WriteHeader(http.StatusNotFound)
	})
	signed := false
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		signed = r.Header.Get("X-Amz-Security-Token") == "session"
		http.Redirect(w, r, elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
	})
	_, err := quick().Find(context.Background(),
		"s3://shelf/a?use_path_style=true&region=here&endpoint="+url.QueryEscape(address))
	if err == nil || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !signed || !asked || had != "" {
		t.Errorf("signed %v, redirected %v with %q", signed, asked, had)
	}
}

func TestOrigin(t *testing.T) {
	of := func(location string) string {
		u, err := url.Parse(location)
		if err != nil {
			t.Fatal(err)
		}
		return origin(u)
	}
	if of("https://Host/a") != of("https://host:443/b?c") || of("http://host") != of("http://host:80") {
		t.Error("a port that goes without saying makes another server")
	}
	for _, other := range []string{"http://host:443", "https://host:444", "https://host.org", "https://other"} {
		if of(other) == of("https://host") {
			t.Errorf("%s is https://host", other)
		}
	}
}
