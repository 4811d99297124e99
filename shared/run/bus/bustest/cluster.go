package bustest

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/processtest"
	"bitnet1/shared/run/bus/link"
)

// Cluster is three event servers, processes of their own. They reach one another through links that tests can cut.
type Cluster struct {
	t       testing.TB
	program string
	nodes   [3]*node
	links   [3][3]*link.Link // links[i][j] is on the way from node i to node j
}

type node struct {
	store, clients, routes, monitor string
	command                         *exec.Cmd
}

// Credentials of the cluster's stages.
const (
	ClusterUser     = "stage"
	ClusterPassword = "a password of tests"
)

// StartCluster starts a cluster for the length of the test.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{t: t, program: serverProgram(t)}
	for i := range c.nodes {
		c.nodes[i] = &node{store: t.TempDir(), clients: processtest.FreeAddress(t),
			routes: processtest.FreeAddress(t), monitor: processtest.FreeAddress(t)}
	}
	for i := range c.nodes {
		for j, to := range c.nodes {
			if i != j {
				var err error
				if c.links[i][j], err = link.New(to.routes); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.links[i][j].Close)
			}
		}
	}
	for i := range c.nodes {
		c.Resume(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.Kill(i)
		}
	})
	for i := range c.nodes {
		c.Await(i)
	}
	return c
}

// URL is for NATS_URL: all nodes, or those that are named.
func (c *Cluster) URL(nodes ...int) string {
	if len(nodes) == 0 {
		nodes = []int{0, 1, 2}
	}
	var all []string
	for _, i := range nodes {
		all = append(all, "nats://"+c.nodes[i].clients)
	}
	return strings.Join(all, ",")
}

// Kill kills a node as kill -9 does.
func (c *Cluster) Kill(i int) {
	_ = c.nodes[i].command.Process.Kill()
	_ = c.nodes[i].command.Wait()
}

// configuration is that of a node: its number, its addresses for clients and for monitoring, its store, the user and
// the password of clients, its address for the others, and theirs. It advertises an address at which nobody is: the
// others are to use the links.
const configuration = `
server_name: node%d
listen: %q
http: %q
jetstream { store_dir: %q, sync_interval: always }
authorization { user: %q, password: %q }
cluster {
  name: test
  listen: %q
  advertise: "127.0.0.1:1"
  routes: [%s]
}
`

// Resume starts a node, with the streams that it had.
func (c *Cluster) Resume(i int) {
	c.t.Helper()
	n := c.nodes[i]
	var routes []string
	for j := range c.nodes {
		if i != j {
			routes = append(routes, strconv.Quote("nats-route://"+c.links[i][j].Address))
		}
	}
	config := filepath.Join(n.store, "nats.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, i+1, n.clients, n.monitor, n.store, ClusterUser,
		ClusterPassword, n.routes, strings.Join(routes, ", ")), 0o600); err != nil {
		c.t.Fatal(err)
	}
	n.command = exec.Command(c.program, "--config", config)
	log, err := os.OpenFile(filepath.Join(n.store, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	n.command.Stdout, n.command.Stderr = log, log
	if err := n.command.Start(); err != nil {
		c.t.Fatal(err)
	}
}

// Cut cuts a node off from the other two, so that nothing passes and nobody is told. Clients still reach the node.
func (c *Cluster) Cut(i int) { c.each(i, (*link.Link).Cut) }

// Join ends Cut.
func (c *Cluster) Join(i int) { c.each(i, (*link.Link).Join) }

func (c *Cluster) each(i int, do func(*link.Link)) {
	for j := range c.nodes {
		if i != j {
			do(c.links[i][j])
			do(c.links[j][i])
		}
	}
}

// Await waits until a node takes part in the cluster.
func (c *Cluster) Await(i int) {
	c.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for began := time.Now(); time.Since(began) < processtest.Patience; time.Sleep(50 * time.Millisecond) {
		answer, err := client.Get("http://" + c.nodes[i].monitor + "/healthz")
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
	}
	log, _ := os.ReadFile(filepath.Join(c.nodes[i].store, "log"))
	c.t.Fatalf("node %d did not join the cluster: %s", i+1, log[max(0, len(log)-2000):])
}

// serverProgram is nats-server, built from the module that the project uses; NATS_SERVER names another one.
func serverProgram(t testing.TB) string {
	t.Helper()
	if program := os.Getenv("NATS_SERVER"); program != "" {
		return program
	}
	program := filepath.Join(t.TempDir(), "nats-server")
	build := exec.Command(cmp.Or(os.Getenv("GO"), "go"), "build", "-o", program, "github.com/nats-io/nats-server/v2")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building nats-server: %v\n%s", err, out)
	}
	return program
}
