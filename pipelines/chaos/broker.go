package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/urfave/cli/v2"
)

// brokerCommand is the event server as a process of its own, which can be killed.
func brokerCommand() *cli.Command {
	return &cli.Command{
		Name: "broker", Hidden: true,
		Flags: []cli.Flag{&cli.IntFlag{Name: "port"}, &cli.StringFlag{Name: "store"}, &cli.StringFlag{Name: "name"},
			&cli.IntFlag{Name: "route-port"}, &cli.StringFlag{Name: "routes"}},
		Action: func(c *cli.Context) error {
			options := &server.Options{
				ServerName: c.String("name"), Host: "127.0.0.1", Port: c.Int("port"), NoSigs: true, NoLog: true,
				JetStream: true, StoreDir: c.String("store"), SyncAlways: true,
				Username: os.Getenv("NATS_USER"), Password: os.Getenv("NATS_PASSWORD"),
			}
			if c.IsSet("routes") {
				options.Routes = server.RoutesFromStr(c.String("routes"))
				// It advertises an address at which nobody is: the others are to use the links.
				options.Cluster = server.ClusterOpts{Name: "chaos", Host: "127.0.0.1", Port: c.Int("route-port"),
					Advertise: "127.0.0.1:1"}
			}
			s, err := server.NewServer(options)
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
	self  string
	env   []string
	args  []string
	wg    sync.WaitGroup
	abort context.CancelFunc

	mu  sync.Mutex
	cmd *exec.Cmd
}

func startBroker(self string, env []string, args ...string) *broker {
	b := &broker{self: self, env: env, args: append([]string{"broker"}, args...)}
	ctx, cancel := context.WithCancel(context.Background())
	b.abort = cancel
	b.wg.Go(func() {
		for ctx.Err() == nil {
			b.once(ctx)
		}
	})
	return b
}

// once runs one process of the server to its end.
func (b *broker) once(ctx context.Context) {
	cmd := exec.CommandContext(ctx, b.self, b.args...)
	cmd.Env = append(os.Environ(), b.env...)
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
	b.abort()
	b.wg.Wait()
}
