// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
)

// A pause that was acknowledged holds: what begins after it does not begin. So it is never memory that tells whether a host is
// paused, but the store: when a step looks at its host, and again when an act on the world begins in it, which may be minutes
// later where a BMC is slow.

// everything is what PausedBy says where a person paused all hosts.
const everything = "all of metald"

// pausedError says that an act did not begin, because by, or the host itself where that is empty, is paused.
type pausedError struct{ by string }

func (e *pausedError) Error() string {
	if e.by == "" {
		return "the host is paused"
	}
	return e.by + " is paused"
}

// stoppedBy names what pauses a host from above, as the store has it now; empty where nothing does.
func (m *Mind) stoppedBy(ctx context.Context, h *metal3.BareMetalHost) (string, error) {
	n, err := m.Store.Namespaces().Newest(ctx, "", v1alpha1.OwnNamespace)
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("reading whether all of metald is paused: %w", err)
	}
	if err == nil && paused(n) {
		return everything, nil
	}
	if c := h.Spec.ConsumerRef; c != nil && c.Kind == "NodePool" {
		p, err := m.Store.Pools().Newest(ctx, c.Namespace, c.Name)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsBadRequest(err) {
			return "", fmt.Errorf("reading whether NodePool %s/%s is paused: %w", c.Namespace, c.Name, err)
		}
		if err == nil && paused(p) {
			return "NodePool " + keyOf(p), nil
		}
	}
	return "", nil
}

// pausedNow answers whether a host, or anything above it, is paused in the store.
func (m *Mind) pausedNow(ctx context.Context, ns, name string) (bool, error) {
	h, err := m.Store.Hosts().Newest(ctx, ns, name)
	if err != nil {
		return false, fmt.Errorf("reading whether the host is paused: %w", err)
	}
	by, err := m.stoppedBy(ctx, h)
	return paused(h) || by != "", err
}

func paused(o inventory.Object) bool {
	_, paused := o.GetAnnotations()[v1alpha1.PausedAnnotation]
	return paused
}

// begins has each act under the context ask first whether the host is paused now. Where it is, the act fails with a
// pausedError, which the step remembers: it ends as paused, whatever else it makes of it.
func (s *step) begins(ctx context.Context) context.Context {
	return inventory.WithGuard(ctx, func(ctx context.Context) error {
		h, err := s.Store.Hosts().Newest(ctx, s.Host.Namespace, s.Host.Name)
		if apierrors.IsNotFound(err) || err == nil && h.UID != s.Host.UID {
			return nil // it was let go: what is left is to tidy up
		}
		if err != nil {
			return fmt.Errorf("reading whether the host is paused: %w", err)
		}
		by, err := s.stoppedBy(ctx, h)
		if err != nil {
			return err
		}
		if by != "" || paused(h) {
			s.stopped = &pausedError{by}
			return s.stopped
		}
		return nil
	})
}

// stoppedNow answers whether an error is that of an act that a pause kept from beginning. What would go on without the act
// must not.
func stoppedNow(err error) bool {
	var p *pausedError
	return errors.As(err, &p)
}

// pause is the outcome of a step of a paused host.
func (s *step) pause(by string) outcome {
	switch {
	case by == everything:
		return heldBack("Paused", "a person paused all of metald", "metald pause --off --all")
	case by != "":
		return heldBack("Paused", "a person paused "+by, "metald pause --off --pool "+by[strings.LastIndex(by, "/")+1:])
	}
	return heldBack("Paused", "a person paused this host", "metald pause --off "+s.Host.Name)
}
