// SPDX-License-Identifier: Apache-2.0

//go:build long

package etcd

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"metald.io/metald/internal/inventory/engine"
	"metald.io/metald/internal/inventory/etcd/etcdtest"
)

func TestNewerSchemaIsRefused(t *testing.T) {
	s := etcdtest.Start(t)
	stranger := s.Client(t)
	defer stranger.Close()
	for schema, want := range map[string]error{"99": engine.ErrNewerSchema, "x": engine.ErrCorrupt, "0": engine.ErrCorrupt} {
		if _, err := stranger.Put(t.Context(), "/metald/meta/schema", schema); err != nil {
			t.Fatal(err)
		}
		if _, err := tryOpen(s); !errors.Is(err, want) {
			t.Errorf("schema %s: %v, want %v", schema, err, want)
		}
		// The refusal left nothing behind.
		if resp, err := stranger.Get(t.Context(), "/metald/meta/holder"); err != nil || len(resp.Kvs) > 0 {
			t.Errorf("schema %s: %v, %v, want no holder", schema, resp, err)
		}
	}
}

func TestEtcdThatIsAwayIsRefused(t *testing.T) {
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, l := range map[string]net.Listener{"nobody listens": gone, "it says nothing": hangs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			b, err := tryOpen(&etcdtest.Server{Endpoint: "http://" + l.Addr().String()})
			if err == nil {
				b.Close()
			}
			if !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), l.Addr().String()) {
				t.Errorf("got %v, want ErrAway and the address", err)
			}
			if took := time.Since(began); took > 2*startLimit {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// One endpoint of two is enough.
func TestOneEndpointIsEnough(t *testing.T) {
	s := etcdtest.Start(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	b := open(t, s, func(c *Config, _ *Options) { c.Endpoints = append(c.Endpoints, "http://"+gone.Addr().String()) })
	mustPut(t, b, "/a", "1")
}
