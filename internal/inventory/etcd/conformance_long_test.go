// SPDX-License-Identifier: Apache-2.0

//go:build long

package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/util/version"

	"metald.io/metald/internal/inventory/etcd/etcdtest"
	"metald.io/metald/internal/inventory/storetest"
)

// open opens the prefix of an etcd as one daemon does.
func open(t testing.TB, s *etcdtest.Server, change ...func(*Config, *Options)) *Backend {
	t.Helper()
	b, err := tryOpen(s, change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func tryOpen(s *etcdtest.Server, change ...func(*Config, *Options)) (*Backend, error) {
	c := Config{Endpoints: []string{s.Endpoint}}
	o := Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now, Me: Holder{Process: os.Getpid(), Host: "here"}, Note: told}
	for _, f := range change {
		f(&c, &o)
	}
	return Open(context.Background(), c, o)
}

// told has every write in the log.
func told(_ context.Context, events []*mvccpb.Event) []byte {
	text := ""
	for _, e := range events {
		text += fmt.Sprintf("%s %s;", e.Type, e.Kv.Key)
	}
	return []byte(text)
}

// Kubernetes' conformance tests, each on an etcd of its own, with every write in the log.
func TestConformance(t *testing.T) {
	var without []storetest.Ability
	of := open(t, etcdtest.Start(t)).version
	if of.LessThan(version.MustParseSemantic(streaming)) {
		without = append(without, storetest.RangeStream)
	}
	t.Logf("on etcd %s, without %q", of, without)
	idle := "--watch-progress-notify-interval=1s"
	if of.LessThan(version.MustParseSemantic("3.6.0")) {
		idle = "--experimental-watch-progress-notify-interval=1s"
	}
	storetest.Run(t, func(t testing.TB) *clientv3.Client {
		return open(t, etcdtest.Start(t, idle)).Client()
	}, without...)
}
