// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/agent/early"
	"metald.io/metald/internal/agent/network"
)

// modulesFile lists what an initramfs loads on every machine.
const modulesFile = agent.EtcDir + "/modules"

// console is where a person looks. As the first program it is the system console.
var console = agent.NewConsole(os.Stdout)

// start is what both kinds of initramfs need first. It returns the kernel's command line.
func start() (string, error) {
	mountErr := early.Mount()
	// From here on a person can read what goes wrong.
	if err := errors.Join(mountErr, early.Console()); err != nil {
		return "", err
	}
	console.Say("metald-agent %s starts", Version())
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", fmt.Errorf("reading the kernel's command line: %w", err)
	}
	go load()
	return string(line), nil
}

// drivers is closed when all are loaded. The network does not wait for it: a card's link takes its time to come up, and
// meanwhile the disks' drivers can be loaded.
var drivers = make(chan struct{})

func load() {
	defer close(drivers)
	began := time.Now()
	loaded, err := early.Drivers(modulesFile)
	if err != nil {
		console.Say("some drivers did not load: %v", err)
	}
	console.Say("drivers for this machine, in %.1f s: %s", time.Since(began).Seconds(), strings.Join(loaded, " "))
	if err := early.MountVariables(); err != nil {
		console.Say("%v", err)
	}
}

// lost is the end of a first program that cannot go on: it says why, gives a person time to read it, and switches the
// machine off, where the daemon's BMC finds it.
func lost(err error) {
	console.Shout("this machine cannot go on.", fmt.Sprint(err), "It switches itself off in 60 seconds.")
	time.Sleep(time.Minute)
	console.Say("%v", early.PowerOff())
	select {}
}

// online gets a lease and keeps it for as long as ctx lasts. When the lease is lost, it is said, the address goes, and all
// starts over; changed is called with each lease after the first.
func online(ctx context.Context, systemUUID string, changed func(network.Lease)) (network.Lease, error) {
	first, err := address(ctx, systemUUID)
	if err != nil {
		return first, err
	}
	go func(l network.Lease) {
		for ctx.Err() == nil {
			err := network.Keep(ctx, l, systemUUID, console.Say)
			if ctx.Err() != nil {
				return
			}
			console.Say("the lease of %s is lost: %v", l.Address.Addr(), err)
			if err := network.Remove(l); err != nil {
				console.Say("%v", err)
			}
			if l, err = address(ctx, systemUUID); err == nil {
				changed(l)
			}
		}
	}(first)
	return first, nil
}

// address gets one lease and sets it.
func address(ctx context.Context, systemUUID string) (network.Lease, error) {
	for {
		lease, err := network.Acquire(ctx, systemUUID, console.Say)
		if err != nil {
			return lease, err
		}
		console.Say("%s has %s, from %s; daemon at %s", lease.Device, lease.Address, lease.Server, lease.AgentURL)
		if err = network.Apply(lease); err == nil {
			return lease, nil
		}
		console.Say("%v; asking again", err)
		time.Sleep(time.Second)
	}
}

// transport speaks TLS to servers that the site's CA vouches for, and to nobody else.
func transport(authority []byte) (*http.Transport, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, errors.New("reading the site CA: it holds no certificate")
	}
	return &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
	}, nil
}

// plain fetches what is checked by its digest.
func plain() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ResponseHeaderTimeout: 30 * time.Second,
		DisableCompression:    true,
	}}
}

// clock mends the clock where it is absurd. It is no reason to stop: if the clock is wrong, TLS will say so.
func clock(ctx context.Context, lease network.Lease, authority []byte) {
	moved, err := early.SetClock(ctx, plain(), lease.BootURL, Built(), authority)
	switch {
	case err != nil:
		console.Say("the clock: %v", err)
	case moved != 0:
		console.Say("the clock was wrong by %s and is set", moved.Round(time.Second))
	}
}
