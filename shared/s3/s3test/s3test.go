// Package s3test starts an S3 server for tests: VersityGW, which the Go command builds from tools/s3/go.mod. Where that
// cannot be built, the test is skipped. If BITNET1_S3 names storage that is there, tests run against the storage, but
// those that break the server.
package s3test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/processtest"
)

// Server is an S3 server with one empty bucket, on a port of this machine.
type Server struct {
	Dir        string // folder with a file for each object
	Attributes string // folder with what the server knows of objects, among it their checksums

	t       testing.TB
	given   string // BITNET1_S3
	folder  string // of the test, in the storage that is given
	program string
	address string
	command *exec.Cmd
}

// bucketName is the bucket that the server has.
const bucketName = "shelf"

// Start starts a server for the length of the test, and sets the environment to the credentials that it wants.
func Start(t testing.TB) *Server {
	t.Helper()
	if given := os.Getenv("BITNET1_S3"); given != "" {
		return &Server{t: t, given: given, folder: "test-" + rand.Text()}
	}
	dir := t.TempDir()
	s := &Server{t: t, program: program(t), address: processtest.FreeAddress(t),
		Dir: filepath.Join(dir, "objects"), Attributes: filepath.Join(dir, "attributes")}
	for _, dir := range []string{filepath.Join(s.Dir, bucketName), s.Attributes} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull} {
		t.(interface{ Setenv(key, value string) }).Setenv(name, value)
	}
	s.Resume()
	t.Cleanup(s.Kill)
	return s
}

// URL names a folder of the server's bucket.
func (s *Server) URL(folder string) string {
	if s.given != "" {
		u, err := url.Parse(s.given)
		if err != nil {
			s.t.Fatalf("BITNET1_S3: %v", err)
		}
		return u.JoinPath(s.folder, folder).String()
	}
	return fmt.Sprintf("s3://%s/%s?endpoint=%s&region=us-east-1&use_path_style=true", bucketName, folder,
		url.QueryEscape("http://"+s.address))
}

// Object is the file of an object.
func (s *Server) Object(key string) string {
	s.own()
	return filepath.Join(s.Dir, bucketName, filepath.FromSlash(key))
}

// own skips the test where the storage is not the test's to break.
func (s *Server) own() {
	s.t.Helper()
	if s.given != "" {
		s.t.Skip("the test breaks its server, and BITNET1_S3 names one that is needed")
	}
}

// Resume starts the server again, after Kill, with the objects that it had.
func (s *Server) Resume() {
	s.t.Helper()
	s.command = exec.Command(s.program, "--quiet", "--port", s.address, "--access", "reader", "--secret", "reader-secret",
		"posix", "--sidecar", s.Attributes, s.Dir)
	if err := s.command.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 200 {
		if answer, err := http.Get("http://" + s.address); err == nil {
			_ = answer.Body.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("the S3 server did not start on %s", s.address)
}

// Kill kills the server.
func (s *Server) Kill() {
	s.own()
	_ = s.command.Process.Kill()
	_ = s.command.Wait()
}

// program builds the server, or finds that it is built.
func program(t testing.TB) string {
	t.Helper()
	module, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Skipf("there is no Go command to build an S3 server with: %v", err)
	}
	tool := exec.Command("go", "tool", "-n", "-modfile="+filepath.Join(filepath.Dir(string(module)), "tools/s3/go.mod"),
		"versitygw")
	tool.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := tool.Output()
	if err != nil {
		t.Skipf("no S3 server can be built: %v", err)
	}
	return strings.TrimSpace(string(out))
}
