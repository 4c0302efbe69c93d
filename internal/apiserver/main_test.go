// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// The library logs each start of a server in a hundred lines; a failing test should be seen.
func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	code := m.Run()
	if shared.close != nil {
		shared.close()
	}
	os.Exit(code)
}
