package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/bus/link"
)

// clusterSize is the number of servers of a cluster.
const clusterSize = 3

// cluster is the event servers that are processes of their own: one, or several that are one JetStream.
type cluster struct {
	address bus.Address
	brokers []*broker
	links   map[[2]int]*link.Link // from one server to another
}

func startCluster(self, store string, n int) (*cluster, error) {
	ports, err := freePorts(2 * n)
	if err != nil {
		return nil, err
	}
	clients, routes := ports[:n], ports[n:]
	c := &cluster{address: bus.Address{User: "chaos", Password: rand.Text()}, links: map[[2]int]*link.Link{}}
	env := c.address.Environ()
	var urls []string
	for i := range n {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", clients[i]))
		args := []string{"--port", strconv.Itoa(clients[i]), "--store", filepath.Join(store, strconv.Itoa(i)),
			"--name", fmt.Sprintf("chaos%d", i)}
		if n > 1 {
			others, err := c.linksFrom(i, routes)
			if err != nil {
				c.stop()
				return nil, err
			}
			args = append(args, "--route-port", strconv.Itoa(routes[i]), "--routes", others)
		}
		c.brokers = append(c.brokers, startBroker(self, env, args...))
	}
	c.address.URL = strings.Join(urls, ",")
	return c, c.ready()
}

// linksFrom makes the links from a server to the others, and returns the routes over them.
func (c *cluster) linksFrom(i int, routes []int) (string, error) {
	var urls []string
	for j, port := range routes {
		if i == j {
			continue
		}
		l, err := link.New(fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return "", err
		}
		c.links[[2]int{i, j}] = l
		urls = append(urls, "nats-route://"+l.Address)
	}
	return strings.Join(urls, ","), nil
}

// freePorts are ports that are free now.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // when all are known, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// ready waits until the cluster can be connected to.
func (c *cluster) ready() error {
	for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := bus.Connect(context.Background(), c.address, "chaos")
		if err == nil {
			conn.Close()
			return nil
		}
		if time.Now().After(limit) {
			return errors.Join(errors.New("the event server does not start"), err)
		}
	}
}

func (c *cluster) processes() (all []*os.Process) {
	for _, b := range c.brokers {
		all = append(all, b.processes()...)
	}
	return all
}

// cut cuts a server off from the others, or joins it to them again. Its clients still reach it.
func (c *cluster) cut(i int, off bool) {
	for ends, l := range c.links {
		if ends[0] != i && ends[1] != i {
			continue
		}
		if off {
			l.Cut()
		} else {
			l.Join()
		}
	}
}

// stop ends the servers for good.
func (c *cluster) stop() {
	for _, b := range c.brokers {
		b.abort()
	}
	for _, b := range c.brokers {
		b.stop()
	}
	for _, l := range c.links {
		l.Close()
	}
}
