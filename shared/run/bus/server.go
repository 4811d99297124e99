package bus

import (
	"crypto/rand"
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

// Server is a nats-server inside this process: JetStream on disk, listening on 127.0.0.1 only. It lets in this process,
// by a random password that stays in memory, and the users that it was started for.
type Server struct {
	Damage []Damage // what was found, and set aside, when the server was started

	nats      *server.Server
	dir       string
	port      int
	users     []User
	keys      map[string]string // public parts of the users' keys, by user
	passwords map[string]string // of users who have no key, and of this process
	store     *storeLog
}

// own is the user of this process, which may do everything.
const own = "bitnet1"

// Errors of a server that is started here. Their texts are parts of sentences.
var (
	ErrStore = errors.New("cannot keep its streams in")
	ErrPort  = errors.New("cannot be used")
)

// StartServer starts a server that keeps its streams under dir. Damaged streams are moved to the folder damaged of dir,
// and the server begins new ones. Port 0 picks a free port. Every user gets a new key, in
// the folder keys of dir, or a new password.
func StartServer(dir string, port int, users ...User) (*Server, error) {
	s := &Server{dir: dir, port: port, users: users, keys: map[string]string{},
		passwords: map[string]string{own: rand.Text()}}
	if err := portFree(port); err != nil {
		return nil, err
	}
	err := writable(dir)
	if err == nil {
		err = s.mend()
	}
	if err == nil {
		err = s.admit()
	}
	if err != nil {
		return nil, fmt.Errorf("event server %w %s: %w", ErrStore, filepath.Clean(dir), err)
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) keyDir() string { return filepath.Join(s.dir, "keys") }

// admit makes keys and passwords for the users. Those of an earlier server go.
func (s *Server) admit() (err error) {
	if err := os.RemoveAll(s.keyDir()); err != nil {
		return err
	}
	if err := os.Mkdir(s.keyDir(), 0o700); err != nil {
		return err
	}
	for _, u := range s.users {
		if u.ByPassword {
			s.passwords[u.Name] = rand.Text()
		} else if s.keys[u.Name], err = WriteKey(s.keyDir(), u.Name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) start() error {
	port := s.port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	options := &server.Options{
		ServerName: "bitnet1", Host: "127.0.0.1", Port: port,
		JetStream: true, StoreDir: s.dir,
		// The default syncs every two minutes: a power cut would lose events whose announcement was acknowledged.
		SyncAlways:             true,
		Users:                  []*server.User{{Username: own, Password: s.passwords[own]}},
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	}
	for _, u := range s.users {
		if u.ByPassword {
			options.Users = append(options.Users,
				&server.User{Username: u.Name, Password: s.passwords[u.Name], Permissions: u.permissions()})
			continue
		}
		options.Nkeys = append(options.Nkeys, &server.NkeyUser{Nkey: s.keys[u.Name], Permissions: u.permissions()})
	}
	options.JetStreamLimits.DefaultMaxConsumers = -1 // old streams do not say how many
	s.store = &storeLog{}
	var err error
	if s.nats, err = server.NewServer(options); err != nil {
		return fmt.Errorf("event server: %w", err)
	}
	s.nats.SetLogger(s.store, false, false)
	s.nats.Start()
	if !s.nats.ReadyForConnections(20 * time.Second) {
		s.Stop()
		return fmt.Errorf("event server did not start on port %d within 20 seconds, with its streams in %s",
			max(port, 0), filepath.Clean(s.dir))
	}
	if !s.nats.JetStreamEnabled() {
		s.Stop()
		return fmt.Errorf("event server could not open its streams in %s: is the disk full?", filepath.Clean(s.dir))
	}
	s.port = s.nats.Addr().(*net.TCPAddr).Port
	return nil
}

// permissions are what the server lets u do; nil: everything.
func (u User) permissions() *server.Permissions {
	if u.Publish == nil && u.Subscribe == nil {
		return nil
	}
	return &server.Permissions{Publish: &server.SubjectPermission{Allow: u.Publish},
		Subscribe: &server.SubjectPermission{Allow: u.Subscribe}}
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

// Mend starts the server anew, on the same port and for the same users, after its store could not be written, once
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
	if err := portFree(s.port); err != nil {
		return err
	}
	return s.start()
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

// Address is how this process connects to s, as a user who may do everything.
func (s *Server) Address() Address {
	return s.AddressOf(own)
}

// AddressOf is how a process of the given user connects to s. A user that s was not started for has no way in.
func (s *Server) AddressOf(user string) Address {
	a := Address{URL: s.nats.ClientURL()}
	if password, ok := s.passwords[user]; ok {
		a.User, a.Password = user, password
	} else if s.keys[user] != "" {
		a.NKey = filepath.Join(s.keyDir(), user+keyEnding)
	}
	return a
}

// Stop shuts the server down and waits until its files are closed.
func (s *Server) Stop() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}
