// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB) *clientv3.Client {
		e, err := Open(filepath.Join(t.TempDir(), "inventory.db"), Options{
			Logger: discard, Now: time.Now, NoSync: true, ProgressInterval: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		return e.Client()
	})
}
