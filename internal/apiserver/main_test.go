// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// atEnd is what else ends with the tests.
var atEnd []func()

// The library logs each start of a server in a hundred lines; a failing test should be seen.
func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	code := m.Run()
	if shared.close != nil {
		shared.close()
	}
	for _, end := range atEnd {
		end()
	}
	os.Exit(code)
}
