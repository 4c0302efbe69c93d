// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	floodConnections = 200 // more than the daemon lets one client have at the same time
	floodTick        = 5 * time.Millisecond
	floodLogin       = "METALD_BENCH_LOGIN"
)

// floodCount is what became of the flood's requests. What is neither refused nor served was written, and not answered by the end.
type floodCount struct {
	Offered, Refused, Served, Broken int64
	Seconds                          float64
}

func (c *floodCount) add(more floodCount) {
	c.Offered, c.Refused, c.Served, c.Broken = c.Offered+more.Offered, c.Refused+more.Refused, c.Served+more.Served, c.Broken+more.Broken
	c.Seconds += more.Seconds
}

// startOffer starts the flood in a program of its own, behind those who measure on the same core.
func startOffer(ctx context.Context, login string, out *bytes.Buffer) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "nice", "-n", "10", self, "-only", "flood")
	cmd.Env = append(os.Environ(), floodRole+"=offer", floodLogin+"="+login)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the flood: %w", err)
	}
	return cmd, nil
}

// offerer writes requests at a steady rate, whether they are answered or not: HTTP/1.1 over connections that are kept, one
// after the other on each.
type offerer struct {
	address string
	tls     *tls.Config
	request []byte
	count   floodCount
}

// offerFlood asks for one host as often as it is meant to for a round, and prints the count as JSON.
func offerFlood(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv(floodLogin))
	if err != nil {
		return err
	}
	at, err := url.Parse(config.Host)
	if err != nil {
		return err
	}
	o := &offerer{address: at.Host, request: fmt.Appendf(nil, "GET %s/%s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n\r\n", apiPath, benchName(0), at.Host)}
	if o.tls, err = rest.TLSConfigFor(config); err != nil {
		return err
	}
	o.tls.NextProtos = []string{"http/1.1"}
	ctx, cancel := context.WithTimeout(ctx, floodRound+2*time.Second) // it begins before the round and ends after it
	defer cancel()
	start := time.Now()
	var lines [floodConnections]chan int
	var group sync.WaitGroup
	for n := range lines {
		lines[n] = make(chan int, 1)
		group.Go(func() { o.line(ctx, lines[n]) })
	}
	tick := time.NewTicker(floodTick)
	defer tick.Stop()
	next, due := 0, 0
	for ctx.Err() == nil {
		<-tick.C
		// What a late tick missed is made up for, up to a tenth of a second.
		want := int(time.Since(start).Seconds() * floodRate)
		due = max(due, want-floodRate/10)
		for tries := 0; due < want && tries < floodConnections; tries++ {
			select {
			case lines[next] <- 1:
				due++
			default: // this one is still writing: the daemon does not read
			}
			next = (next + 1) % floodConnections
		}
	}
	for n := range lines {
		close(lines[n])
	}
	group.Wait()
	o.count.Seconds = time.Since(start).Seconds()
	return json.NewEncoder(os.Stdout).Encode(&o.count)
}

// line keeps one connection.
func (o *offerer) line(ctx context.Context, due <-chan int) {
	for ctx.Err() == nil {
		if err := o.connection(ctx, due); err != nil && ctx.Err() == nil {
			atomic.AddInt64(&o.count.Broken, 1)
			time.Sleep(100 * time.Millisecond)
		}
	}
	for range due { // the giver may still be giving
	}
}

func (o *offerer) connection(ctx context.Context, due <-chan int) error {
	conn, err := (&tls.Dialer{Config: o.tls}).DialContext(ctx, "tcp", o.address)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	read := make(chan error, 1)
	go func() { read <- o.answers(conn) }()
	for {
		select {
		case _, ok := <-due:
			if !ok {
				return nil
			}
			if _, err := conn.Write(o.request); err != nil {
				return errors.Join(err, conn.Close(), <-read)
			}
			atomic.AddInt64(&o.count.Offered, 1)
		case err := <-read:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *offerer) answers(conn io.Reader) error {
	in := bufio.NewReaderSize(conn, 32<<10)
	for {
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		switch answer.StatusCode {
		case http.StatusOK:
			atomic.AddInt64(&o.count.Served, 1)
		case http.StatusTooManyRequests:
			if answer.Header.Get("Retry-After") == "" {
				return errors.New("a refusal does not say when to try again")
			}
			atomic.AddInt64(&o.count.Refused, 1)
		default:
			return fmt.Errorf("got %s", answer.Status)
		}
	}
}
