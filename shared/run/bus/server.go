package bus

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Server is a nats-server inside this process: JetStream on disk, listening on 127.0.0.1 only, open to whoever has the
// random password it was started with.
type Server struct {
	nats     *server.Server
	password string
	dir      string
	port     int
	store    *storeLog
}

const user = "bitnet1"

// Errors of a server that is started here. Their texts are parts of sentences.
var (
	ErrStore = errors.New("cannot keep its streams in")
	ErrPort  = errors.New("cannot be used")
)

// StartServer starts a server that keeps its streams under dir. Port 0 picks a free port.
func StartServer(dir string, port int) (*Server, error) {
	secret := make([]byte, 24)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	return start(dir, port, base64.RawURLEncoding.EncodeToString(secret))
}

func start(dir string, port int, password string) (*Server, error) {
	if err := portFree(port); err != nil {
		return nil, err
	}
	if err := writable(dir); err != nil {
		return nil, fmt.Errorf("event server %w %s: %w", ErrStore, filepath.Clean(dir), err)
	}
	s := &Server{password: password, dir: dir, port: port, store: &storeLog{}}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	options := &server.Options{
		ServerName: "bitnet1", Host: "127.0.0.1", Port: port,
		JetStream: true, StoreDir: dir,
		// The default syncs every two minutes: a power cut would lose events whose announcement was acknowledged.
		SyncAlways: true,
		Username:   user, Password: s.password,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	}
	options.JetStreamLimits.DefaultMaxConsumers = -1 // old streams do not say how many
	var err error
	if s.nats, err = server.NewServer(options); err != nil {
		return nil, fmt.Errorf("event server: %w", err)
	}
	s.nats.SetLogger(s.store, false, false)
	s.nats.Start()
	if !s.nats.ReadyForConnections(20 * time.Second) {
		s.Stop()
		return nil, fmt.Errorf("event server did not start on port %d within 20 seconds, with its streams in %s",
			max(port, 0), filepath.Clean(dir))
	}
	if !s.nats.JetStreamEnabled() {
		s.Stop()
		return nil, fmt.Errorf("event server could not open its streams in %s: is the disk full?", filepath.Clean(dir))
	}
	s.port = s.nats.Addr().(*net.TCPAddr).Port
	return s, nil
}

// storeLog listens to the server's log for the one thing that the server tells nobody else: that a stream could not be
// written, after which that stream takes nothing more until the server is started again, whatever becomes of the disk.
type storeLog struct {
	mu  sync.Mutex
	err error
}

func (l *storeLog) Errorf(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); strings.HasPrefix(text, "Filestore [") {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = errors.New(text)
	}
}

func (l *storeLog) Noticef(string, ...any)            {}
func (l *storeLog) Warnf(string, ...any)              {}
func (l *storeLog) Fatalf(format string, args ...any) { l.Errorf(format, args...) }
func (l *storeLog) Debugf(string, ...any)             {}
func (l *storeLog) Tracef(string, ...any)             {}

// Mend starts the server anew, on the same port and with the same password, after its store could not be written, once
// there is room for it again. The error says why the store is unusable; nil when it is usable, or is again.
func (s *Server) Mend() error {
	s.store.mu.Lock()
	err := s.store.err
	s.store.mu.Unlock()
	if err == nil && s.nats.JetStreamEnabled() {
		return nil
	}
	if err := roomy(s.dir); err != nil {
		return fmt.Errorf("event server %w %s: %w", ErrStore, filepath.Clean(s.dir), err)
	}
	s.Stop()
	again, err := start(s.dir, s.port, s.password)
	if err != nil {
		return err
	}
	*s = *again
	return nil
}

// roomy makes sure that a server has room to write in dir.
func roomy(dir string) error {
	probe, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return err
	}
	_, err = probe.Write(make([]byte, minMessage))
	return errors.Join(err, probe.Sync(), probe.Close(), os.Remove(probe.Name()))
}

// writable turns another vague and late failure of the server into an early, clear one.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	probe, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// portFree turns the server's late and vague failure into an early, clear one.
func portFree(port int) error {
	if port == 0 {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d %w: %w", port, ErrPort, err)
	}
	return l.Close()
}

// Address says how to connect to s.
func (s *Server) Address() Address {
	return Address{URL: s.nats.ClientURL(), User: user, Password: s.password}
}

// Stop shuts the server down and waits until its files are closed.
func (s *Server) Stop() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// Address is where a NATS server is and what it wants to see. It is read from the environment, never from arguments,
// which other users could list.
type Address struct {
	URL      string // NATS_URL, e.g. nats://127.0.0.1:4222
	User     string // NATS_USER
	Password string // NATS_PASSWORD
	Token    string // NATS_TOKEN
	Creds    string // NATS_CREDS: path of a credentials file
}

// AddressFrom reads an Address with the given getenv.
func AddressFrom(getenv func(string) string) Address {
	return Address{
		URL: getenv("NATS_URL"), User: getenv("NATS_USER"), Password: getenv("NATS_PASSWORD"),
		Token: getenv("NATS_TOKEN"), Creds: getenv("NATS_CREDS"),
	}
}

// Environ is the inverse of AddressFrom, for child processes.
func (a Address) Environ() []string {
	var env []string
	for _, kv := range [][2]string{
		{"NATS_URL", a.URL}, {"NATS_USER", a.User}, {"NATS_PASSWORD", a.Password},
		{"NATS_TOKEN", a.Token}, {"NATS_CREDS", a.Creds},
	} {
		if kv[1] != "" {
			env = append(env, kv[0]+"="+kv[1])
		}
	}
	return env
}

var errNoAddress = errors.New("no event server: set NATS_URL (and NATS_USER with NATS_PASSWORD, NATS_TOKEN or " +
	"NATS_CREDS where the server wants them), or let the launcher start one")
