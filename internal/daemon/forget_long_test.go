// SPDX-License-Identifier: Apache-2.0

//go:build long

package daemon

import (
	"net"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// deadBMC takes connections and never says a word: the worst way to be dead, since each question waits for its time limit.
func deadBMC(t *testing.T) (address string, asked func() bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var held []net.Conn
	var count atomic.Int32
	done := make(chan bool)
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, conn)
			count.Add(1)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, conn := range held {
			conn.Close()
		}
	})
	return l.Addr().String(), func() bool { return count.Load() > 0 }
}

// TestHostWithHangingBMCIsForgotten takes half a minute, which is how long the question that is under way may take.
func TestHostWithHangingBMCIsForgotten(t *testing.T) {
	address, asked := deadBMC(t)
	forget(t, served(t), address, func(*unstructured.Unstructured) bool { return asked() })
}
