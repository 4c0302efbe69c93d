// SPDX-License-Identifier: Apache-2.0

//go:build long

package inventory_test

import (
	"bytes"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory"
)

// Secrets are as sealed in etcd as in a file.
func TestSecretsOnEtcd(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"SecretsAreSealed": TestSecretsAreSealed, "MovedSecretIsRefused": TestMovedSecretIsRefused, "LostKeyIsNotReplaced": TestLostKeyIsNotReplaced,
		"KeyIsChanged": TestKeyIsChanged, "PlainSecretsAreRefused": TestPlainSecretsAreRefused,
	} {
		t.Run(name, func(t *testing.T) {
			server := inventory.KeepOnEtcd(t)
			test(t)
			stranger := server.Client(t)
			defer stranger.Close()
			resp, err := stranger.Get(t.Context(), "/", clientv3.WithPrefix())
			if err != nil || len(resp.Kvs) == 0 {
				t.Fatalf("the test left nothing in etcd: %v, %v", resp, err)
			}
			for _, kv := range resp.Kvs {
				if bytes.Contains(kv.Value, []byte(canary)) {
					t.Errorf("the password can be read in %s", kv.Key)
				}
			}
		})
	}
}
