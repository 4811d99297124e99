package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/bus"
)

// brokerCommand is the event server as a process of its own, which can be killed.
func brokerCommand() *cli.Command {
	return &cli.Command{
		Name: "broker", Hidden: true,
		Flags: []cli.Flag{&cli.IntFlag{Name: "port"}, &cli.StringFlag{Name: "store"}},
		Action: func(c *cli.Context) error {
			s, err := server.NewServer(&server.Options{
				ServerName: "chaos", Host: "127.0.0.1", Port: c.Int("port"), NoSigs: true, NoLog: true,
				JetStream: true, StoreDir: c.String("store"), SyncAlways: true,
				Username: os.Getenv("NATS_USER"), Password: os.Getenv("NATS_PASSWORD"),
			})
			if err != nil {
				return err
			}
			s.Start()
			gone := make(chan struct{})
			go func() { // with the campaign that started it
				_, _ = io.Copy(io.Discard, os.Stdin)
				close(gone)
			}()
			select {
			case <-c.Context.Done():
			case <-gone:
			}
			s.Shutdown()
			s.WaitForShutdown()
			return nil
		},
	}
}

// broker keeps an event server's process alive: one that dies is started again, on the same port.
type broker struct {
	self, store string
	address     bus.Address
	port        int

	wg     sync.WaitGroup
	cancel context.CancelFunc
	mu     sync.Mutex
	cmd    *exec.Cmd
}

func startBroker(self, store string) (*broker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	b := &broker{self: self, store: store, port: port, address: bus.Address{
		URL: fmt.Sprintf("nats://127.0.0.1:%d", port), User: "chaos", Password: rand.Text()}}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.wg.Go(func() {
		for ctx.Err() == nil {
			b.once(ctx)
		}
	})
	return b, b.ready()
}

// once runs one process of the server to its end.
func (b *broker) once(ctx context.Context) {
	cmd := exec.CommandContext(ctx, b.self, "broker", "--port", strconv.Itoa(b.port), "--store", b.store)
	cmd.Env = append(os.Environ(), b.address.Environ()...)
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		time.Sleep(restartPause)
		return
	}
	defer stdin.Close()
	b.mu.Lock()
	b.cmd = cmd
	b.mu.Unlock()
	_ = cmd.Wait()
	time.Sleep(restartPause)
}

// restartPause is how long the server is away when it was killed.
const restartPause = 200 * time.Millisecond

// ready waits until the server can be connected to.
func (b *broker) ready() error {
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := bus.Connect(context.Background(), b.address, "chaos")
		if err == nil {
			conn.Close()
			return nil
		}
		if time.Now().After(limit) {
			return err
		}
	}
}

func (b *broker) processes() []*os.Process {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd == nil || b.cmd.Process.Signal(syscall.Signal(0)) != nil {
		return nil
	}
	return []*os.Process{b.cmd.Process}
}

// stop ends the server for good.
func (b *broker) stop() {
	b.cancel()
	b.wg.Wait()
}
