// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"log/slog"
	"net/netip"
	"regexp"
	"sort"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/pxe"
)

const (
	// keptSightings caps the strangers that are remembered; a new one then pushes out the one not seen for longest.
	keptSightings = 1000
	// sightingLife is how long a stranger is remembered after it was last seen.
	sightingLife = 7 * 24 * time.Hour
	// sightingPause is how often one stranger is written at most: a flood must not become disk writes.
	sightingPause = 10 * time.Second
	// sightingWrites caps the writes a second over all strangers.
	sightingWrites = 20
)

// sightings remembers strangers. What it is told it takes without waiting; a flood is dropped and counted.
type sightings struct {
	objects *inventory.Objects[*v1alpha1.Sighting]
	log     *slog.Logger
	now     func() time.Time
	in      chan v1alpha1.SightingStatus
}

func newSightings(o *inventory.Objects[*v1alpha1.Sighting], log *slog.Logger, now func() time.Time) *sightings {
	return &sightings{objects: o, log: log, now: now, in: make(chan v1alpha1.SightingStatus, 256)}
}

func (s *sightings) note(st v1alpha1.SightingStatus) {
	select {
	case s.in <- st:
	default: // more strangers than we care to write down
	}
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// sightingName is the same for the same stranger.
func sightingName(st v1alpha1.SightingStatus) string {
	word := st.MAC
	if word == "" {
		word = st.Address
	}
	if word == "" {
		word = st.UUID
	}
	return st.Kind + "-" + strings.Trim(notInNames.ReplaceAllString(strings.ToLower(word), "-"), "-")
}

// run writes strangers down until ctx ends.
func (s *sightings) run(ctx context.Context) error {
	written := map[string]time.Time{} // name -> when it was last written
	list, err := s.objects.List(ctx, "")
	if err != nil {
		return err
	}
	for _, o := range list {
		written[o.Name] = o.CreationTimestamp.Time
		if o.Status.LastSeen != nil {
			written[o.Name] = o.Status.LastSeen.Time
		}
	}
	expire := time.NewTicker(time.Hour)
	defer expire.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-expire.C:
			s.forget(ctx, written, keptSightings)
		case st := <-s.in:
			name := sightingName(st)
			last, known := written[name]
			if known && s.now().Sub(last) < sightingPause {
				continue
			}
			if !known && len(written) >= keptSightings {
				s.forget(ctx, written, keptSightings-1)
			}
			if err := s.write(ctx, name, st); err != nil {
				s.log.Warn("writing a sighting", "name", name, "err", err)
				continue
			}
			if !known {
				s.log.Info("stranger seen", "kind", st.Kind, "mac", st.MAC, "ip", st.Address, "said", st.Said)
			}
			written[name] = s.now()
			select {
			case <-time.After(time.Second / sightingWrites):
			case <-ctx.Done():
			}
		}
	}
}

func (s *sightings) write(ctx context.Context, name string, st v1alpha1.SightingStatus) error {
	now := metav1.NewTime(s.now())
	if len(st.Said) > 256 {
		st.Said = st.Said[:256]
	}
	st.Said = strings.ToValidUTF8(st.Said, "?")
	st.LastSeen, st.FirstSeen, st.Count = &now, &now, 1
	_, err := s.objects.Update(ctx, "", name, func(o *v1alpha1.Sighting) error {
		next := st
		if o.Status.FirstSeen != nil {
			next.FirstSeen = o.Status.FirstSeen
		}
		next.Count = o.Status.Count + 1
		o.Status = next
		return nil
	})
	if apierrors.IsNotFound(err) {
		_, err = s.objects.Create(ctx, &v1alpha1.Sighting{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: st})
	}
	return err
}

// forget removes what is too old, then the oldest until at most keep are left.
func (s *sightings) forget(ctx context.Context, written map[string]time.Time, keep int) {
	var names []string
	for n := range written {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool { return written[names[i]].Before(written[names[j]]) })
	for i, n := range names {
		if len(names)-i <= keep && s.now().Sub(written[n]) < sightingLife {
			break
		}
		if err := remove(ctx, s.objects, "", n); err != nil {
			s.log.Warn("removing a sighting", "name", n, "err", err)
			continue
		}
		delete(written, n)
	}
}

// Seen is told by the boot servers of a machine that no host matches; what is a sentence about it.
func (m *Mind) Seen(machine pxe.Machine, what string) {
	kind := "dhcp"
	if machine.Client == pxe.HTTPClient || machine.Client == pxe.PXEClient || machine.Client == pxe.IPXEClient {
		kind = "boot"
	}
	m.sighting.note(v1alpha1.SightingStatus{Kind: kind, Address: machine.Interface, MAC: machine.MAC.String(), UUID: machine.UUID, Said: what})
}

// Stranger is told by the desk of an agent that no host matches.
func (m *Mind) Stranger(hello v1alpha1.Hello, from netip.Addr) {
	st := v1alpha1.SightingStatus{Kind: "agent", Address: from.String(), MAC: hello.BootMAC, UUID: hello.SystemUUID,
		Said: strings.TrimSpace("agent " + hello.AgentVersion)}
	if hello.SerialNumber != "" {
		st.Said += ", serial number " + hello.SerialNumber
	}
	if st.MAC == "" && len(hello.MACs) > 0 {
		st.MAC = hello.MACs[0]
	}
	m.sighting.note(st)
}

// sweep looks for unlisted BMCs on the configured networks, without credentials.
func (m *Mind) sweep(ctx context.Context) error {
	if len(m.SweepPrefixes) == 0 || m.Limits.Sweep <= 0 {
		return nil
	}
	for {
		err := m.BMCs.Sweep(ctx, m.SweepPrefixes, func(f bmc.Found) {
			if !m.listed(f) {
				m.sighting.note(foundSighting(f))
			}
		})
		if err != nil && ctx.Err() == nil {
			m.log.Warn("sweeping for BMCs", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(m.Limits.Sweep):
		}
	}
}

// listed answers whether a BMC that was found is one of our hosts'.
func (m *Mind) listed(f bmc.Found) bool {
	return len(m.references.find(word("bmc", f.Address.Authority()))) > 0
}

func foundSighting(f bmc.Found) v1alpha1.SightingStatus {
	return v1alpha1.SightingStatus{Kind: "bmc", Address: f.Address.String(), UUID: f.UUID, CertificateSHA256: f.CertificateSHA256,
		Said: strings.TrimSpace(strings.Join([]string{f.Vendor, f.Product, "Redfish", f.RedfishVersion}, " "))}
}
