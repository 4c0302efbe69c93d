// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// transferPause is how long a machine may be without a byte of a boot file that it has asked for and not got whole. EDK2
// falls into its shell or its next boot option when a transfer breaks off, and never asks again by itself.
const transferPause = time.Minute

// transfers is how boot files travel to the hosts right now.
type transfers struct {
	mu    sync.Mutex
	since time.Time // before that nothing is known: the daemon was not there
	on    map[string]*transfer
}

type transfer struct {
	digest  string
	running int
	last    time.Time // when one last began or ended
	whole   *metav1.Time
}

func newTransfers(now time.Time) *transfers {
	return &transfers{since: now, on: map[string]*transfer{}}
}

func (t *transfers) of(key, digest string) *transfer {
	if t.on[key] == nil || t.on[key].digest != digest {
		t.on[key] = &transfer{digest: digest}
	}
	return t.on[key]
}

// TransferBegan hears that a file is on its way to a host.
func (m *Mind) TransferBegan(key, digest string) {
	m.transfers.mu.Lock()
	defer m.transfers.mu.Unlock()
	t := m.transfers.of(key, digest)
	t.running++
	t.last = m.now()
}

// TransferEnded hears that it is there, or has broken off.
func (m *Mind) TransferEnded(key, digest string, whole bool) {
	m.transfers.mu.Lock()
	t := m.transfers.of(key, digest)
	t.running = max(t.running-1, 0)
	t.last = m.now()
	if whole {
		at := metav1.NewTime(t.last)
		t.whole = &at
	}
	m.transfers.mu.Unlock()
	m.lookAtHost(key)
}

// sent answers when the whole of a file went to a host, nil while it has not.
func (t *transfers) sent(key, digest string) *metav1.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.on[key]; f != nil && f.digest == digest {
		return f.whole
	}
	return nil
}

// silent answers since when no byte of the file has been on its way to the host; false while one is.
func (t *transfers) silent(key, digest string) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.on[key]
	switch {
	case f == nil || f.digest != digest || f.last.Before(t.since):
		return t.since, true
	case f.running > 0:
		return time.Time{}, false
	}
	return f.last, true
}

func (t *transfers) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.on, key)
}

// gotWhole answers whether the file of an order went out whole since it was last asked for. Times are kept in seconds.
func gotWhole(order *v1alpha1.BootOrder) bool {
	return order.Sent != nil && !order.Sent.Before(order.Asked)
}

// brokeOff answers whether the machine asked for the file of its order, did not get it whole, and has stopped taking it.
func (s *step) brokeOff(order *v1alpha1.BootOrder) bool {
	if order == nil || order.Asked == nil || gotWhole(order) {
		return false
	}
	quiet, ok := s.transfers.silent(s.key, order.Digest)
	if quiet.Before(order.Asked.Time) {
		quiet = order.Asked.Time
	}
	return ok && s.now().Sub(quiet) > transferPause
}
