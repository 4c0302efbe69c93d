// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// workers bounds what waits for the disk at once, and so how many leases share one commit.
	workers = 64
	// queued bounds what waits for one worker. What does not fit is dropped: its machine asks again.
	queued = 32
	// saveTimeout bounds the wait for a lease to be durable; a machine has long asked again by then.
	saveTimeout = 5 * time.Second
)

// DHCP serves one subnet.
type DHCP struct {
	subnet Subnet
	policy BootPolicy
	store  LeaseStore
	seen   *sightings
	log    *slog.Logger
	now    func() time.Time
	warned limiter
	guard  *guard // nil: served without looking for others

	mu     sync.Mutex
	leases *Leases
}

// NewDHCP makes a server for a subnet that Validate accepts.
func NewDHCP(s Subnet, policy BootPolicy, store LeaseStore, lookout Lookout, log *slog.Logger) *DHCP {
	return &DHCP{subnet: s, policy: policy, store: store, seen: newSightings(lookout), log: log.With("interface", s.Interface), now: time.Now, leases: NewLeases()}
}

// Guard makes Serve look for other DHCP servers through wire, and answer nobody while there is one; besideOthers is a person's
// word that there may be. Call it before Serve.
func (d *DHCP) Guard(wire Wire, besideOthers bool) {
	d.guard = newGuard(wire, d.subnet, besideOthers, d.log, func(m Machine, what string) { d.seen.see(m, d.now(), what) })
}

// Leases is a copy of what is given out, sorted by address.
func (d *DHCP) Leases() []Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leases.All()
}

// Holder is the host that holds an address of this subnet, as its BootPolicy named it.
func (d *DHCP) Holder(ip netip.Addr) (host string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	mac, ok := d.leases.byIP[ip]
	return d.leases.byMAC[mac].Host, ok
}

// Serve loads the leases and answers packets from conn until ctx ends, then returns nil. It does not close conn.
//
// One goroutine reads. Each MAC has its one worker, so that a machine's packets keep their order, and a flood in one
// machine's name fills one queue.
func (d *DHCP) Serve(ctx context.Context, conn net.PacketConn) error {
	if err := d.subnet.Validate(); err != nil {
		return err
	}
	if _, ok := conn.(*net.UDPConn); ok {
		if err := hasAddress(d.subnet); err != nil {
			return err
		}
	}
	if err := d.load(ctx); err != nil {
		return err
	}
	out := replier(conn, d.subnet.Server)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { d.seen.run(ctx) })
	if d.guard != nil {
		d.guard.open.Store(d.guard.exempt || d.guard.vouches(d.Leases(), d.now()))
		wg.Go(func() { d.guard.run(ctx) })
	}
	queues := make([]chan []byte, workers)
	for i := range queues {
		queue := make(chan []byte, queued)
		queues[i] = queue
		wg.Go(func() {
			for packet := range queue {
				if ctx.Err() == nil {
					d.handle(ctx, packet, out)
				}
			}
		})
	}
	defer func() {
		for _, queue := range queues {
			close(queue)
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return d.read(ctx, conn, queues)
}

func (d *DHCP) load(ctx context.Context) error {
	stored, err := d.store.Leases(ctx)
	if err != nil {
		return fmt.Errorf("reading leases of interface %s: %w", d.subnet.Interface, err)
	}
	mine := stored[:0:0]
	for _, l := range stored {
		if l.Interface == d.subnet.Interface && d.subnet.Prefix.Contains(address(l)) {
			mine = append(mine, l)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leases = NewLeases(mine...)
	return nil
}

func (d *DHCP) read(ctx context.Context, conn net.PacketConn, queues []chan []byte) error {
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("reading from interface %s: %w", d.subnet.Interface, err)
		case err != nil: // for instance ENETDOWN while a cable is out: the interface comes back
			d.log.Warn("cannot read a DHCP packet", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		// The smallest packet has the fixed part and the cookie; hardware type 1 with length 6 is Ethernet.
		if n < 240 || buf[0] != byte(dhcpv4.OpcodeBootRequest) || buf[1] != 1 || buf[2] != 6 {
			continue
		}
		packet := append([]byte(nil), buf[:n]...)
		h := fnv.New32a()
		h.Write(packet[28:34])
		select {
		case queues[h.Sum32()%workers] <- packet:
		default:
			d.log.Debug("dropped a DHCP packet", "mac", net.HardwareAddr(packet[28:34]).String())
		}
	}
}

func (d *DHCP) handle(ctx context.Context, packet []byte, out writer) {
	p, err := dhcpv4.FromBytes(packet)
	if err != nil {
		d.log.Debug("cannot read a DHCP packet", "err", err)
		return
	}
	if d.guard != nil && !d.guard.open.Load() {
		return
	}
	m := machineOf(p, d.subnet.Interface)
	var answer *Answer
	if a, ok := d.policy.Boot(m); ok {
		answer = &a
	} else if p.MessageType() == dhcpv4.MessageTypeDiscover {
		d.seen.see(m, d.now(), asked(m))
	}
	decision := d.decide(p, m, answer)
	if err := d.persist(ctx, decision); err != nil {
		// The machine hears nothing and asks again; in memory the address stays reserved for it.
		d.log.Error("cannot save a lease", "mac", m.MAC.String(), "err", err)
		return
	}
	if decision.Reply != nil {
		if err := out(decision.Reply.ToBytes(), decision.To); err != nil {
			d.log.Warn("cannot send a DHCP answer", "mac", m.MAC.String(), "to", decision.To.String(), "err", err)
			return
		}
	}
	d.tell(ctx, p, m, answer, decision)
}

// decide looks at the leases and changes them in one step, so that no two machines are told the same address.
func (d *DHCP) decide(p *dhcpv4.DHCPv4, m Machine, answer *Answer) Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	decision := Decide(p, d.leases, m, answer, d.subnet, now)
	d.leases.Apply(decision, now)
	return decision
}

func (d *DHCP) persist(ctx context.Context, decision Decision) error {
	// A save that began before the daemon's end is not cut off: the machine may still get its answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if decision.Remove != nil {
		if err := d.store.Remove(ctx, *decision.Remove); err != nil {
			return fmt.Errorf("removing lease of %s: %w", decision.Remove.IP, err)
		}
	}
	if decision.Save != nil {
		if err := d.store.Save(ctx, *decision.Save); err != nil {
			return fmt.Errorf("saving lease of %s: %w", decision.Save.IP, err)
		}
	}
	return nil
}

// tell writes one info line for each boot answer, one for what a person should know, and the rest for debugging.
func (d *DHCP) tell(ctx context.Context, p *dhcpv4.DHCPv4, m Machine, answer *Answer, decision Decision) {
	attrs := []any{"mac", m.MAC.String(), "client", m.Client.String(), "message", p.MessageType().String()}
	if answer != nil {
		attrs = append(attrs, "host", answer.Host)
	}
	if decision.Reply != nil {
		attrs = append(attrs, "ip", decision.Reply.YourIPAddr.String())
	}
	acked := decision.Reply != nil && decision.Save != nil && !decision.Renewal
	_, legal := Subnet{}.bootFile(*cmp.Or(answer, &Answer{}))
	switch {
	case answer != nil && answer.Digest != "" && m.Boots() && acked && !legal:
		d.log.Error("boot answer has no legal digest and file name", append(attrs, "image", answer.Digest, "file", answer.File)...)
	case acked && decision.File != "":
		d.log.Info("answered boot", append(attrs, "image", answer.Digest, "arch", m.Arch.String())...)
	case decision.Reply != nil && legal && decision.File == "" && (m.Client == PXEClient || m.Client == IPXEClient):
		// At the offer: EDK2 does not even request it, and asks for a minute before it goes on to its next boot option.
		if d.warned.allow(m, d.now()) {
			d.log.Warn("PXE client is offered no boot file: no loader is served for its architecture", append(attrs, "arch", m.Arch.String())...)
		}
	case acked && m.Boots():
		d.log.Info("boot client got an address and no boot file: no boot is ordered", attrs...)
	case acked:
		d.log.Info("leased address", attrs...)
	case decision.Decline.IsValid():
		d.log.Warn("address declined: another machine uses it", append(attrs, "ip", decision.Decline.String())...)
	case answer != nil && decision.Why == noFreeAddress:
		d.log.Error("no free address", attrs...)
	default:
		d.log.DebugContext(ctx, "handled a DHCP packet", append(attrs, "what", decision.Why)...)
	}
}

// writer sends one answer.
type writer func(packet []byte, to netip.AddrPort) error
