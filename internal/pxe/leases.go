// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"
)

const (
	// offerTime is how long an offered address waits for its request. UEFI asks within seconds.
	offerTime = 30 * time.Second
	// declineTime is how long an address rests that a machine found in use.
	declineTime = 10 * time.Minute
)

// Leases is what a subnet has given out, by machine and by address. Decide only reads it; Apply is the one way it changes.
type Leases struct {
	byMAC     map[string]Lease
	byIP      map[netip.Addr]string
	offers    map[string]Lease // by MAC; a stale one stays until its machine or its address is offered again
	offeredTo map[netip.Addr]string
	declined  map[netip.Addr]time.Time
}

// NewLeases takes what a LeaseStore held. Of two leases of one address the one that ends later stays.
func NewLeases(stored ...Lease) *Leases {
	l := &Leases{byMAC: map[string]Lease{}, byIP: map[netip.Addr]string{}, offers: map[string]Lease{}, offeredTo: map[netip.Addr]string{},
		declined: map[netip.Addr]time.Time{}}
	stored = slices.Clone(stored)
	slices.SortFunc(stored, func(a, b Lease) int { return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.MAC, b.MAC)) })
	for _, lease := range stored {
		if ip, err := netip.ParseAddr(lease.IP); err == nil {
			if mac, ok := l.byIP[ip]; ok {
				l.drop(l.byMAC[mac])
			}
			l.put(lease)
		}
	}
	return l
}

// All is every lease, sorted by address.
func (l *Leases) All() []Lease {
	all := make([]Lease, 0, len(l.byMAC))
	for _, lease := range l.byMAC {
		all = append(all, lease)
	}
	slices.SortFunc(all, func(a, b Lease) int { return address(a).Compare(address(b)) })
	return all
}

// Apply takes in what was decided.
func (l *Leases) Apply(d Decision, now time.Time) {
	if d.Remove != nil {
		l.drop(*d.Remove)
	}
	if d.Offer != nil {
		l.forgetOffer(d.Offer.MAC)
		l.forgetOffer(l.offeredTo[address(*d.Offer)])
		l.offers[d.Offer.MAC] = *d.Offer
		l.offeredTo[address(*d.Offer)] = d.Offer.MAC
	}
	if d.Save != nil {
		l.forgetOffer(d.Save.MAC)
		l.put(*d.Save)
	}
	if d.Decline.IsValid() {
		l.decline(d.Decline, now)
	}
}

func (l *Leases) put(lease Lease) {
	l.drop(l.byMAC[lease.MAC])
	l.byMAC[lease.MAC] = lease
	l.byIP[address(lease)] = lease.MAC
}

func (l *Leases) drop(lease Lease) {
	if l.byMAC[lease.MAC].IP == lease.IP {
		delete(l.byMAC, lease.MAC)
	}
	if ip := address(lease); l.byIP[ip] == lease.MAC {
		delete(l.byIP, ip)
	}
}

func (l *Leases) forgetOffer(mac string) {
	if offer, ok := l.offers[mac]; ok {
		delete(l.offers, mac)
		delete(l.offeredTo, address(offer))
	}
}

// decline lets an address rest. A machine that declines without end must not empty the pool, so the list is short, and
// the oldest entry gives way.
func (l *Leases) decline(ip netip.Addr, now time.Time) {
	const most = 16
	for a, at := range l.declined {
		if !at.Add(declineTime).After(now) {
			delete(l.declined, a)
		}
	}
	for len(l.declined) >= most {
		var oldest netip.Addr
		for a, at := range l.declined {
			if !oldest.IsValid() || at.Before(l.declined[oldest]) || at.Equal(l.declined[oldest]) && a.Less(oldest) {
				oldest = a
			}
		}
		delete(l.declined, oldest)
	}
	l.declined[ip] = now
}

// resting says whether the address was declined lately.
func (l *Leases) resting(ip netip.Addr, now time.Time) bool {
	at, ok := l.declined[ip]
	return ok && at.Add(declineTime).After(now)
}

// free says whether mac may have ip: nobody else holds it, was offered it, or found it in use.
func (l *Leases) free(ip netip.Addr, mac string, s Subnet, now time.Time) bool {
	if !s.gives(ip) || l.resting(ip, now) {
		return false
	}
	if holder, ok := l.byIP[ip]; ok && holder != mac {
		return false
	}
	return !l.promised(ip, mac, now)
}

// choose picks mac's address: the one it has, else the one it was offered, else the first free one from a place that
// only its MAC decides, else the address of the lease that ended longest ago. reclaimed is that lease.
func (l *Leases) choose(mac string, s Subnet, now time.Time) (ip netip.Addr, reclaimed *Lease, ok bool) {
	if lease, ok := l.byMAC[mac]; ok && l.free(address(lease), mac, s, now) {
		return address(lease), nil, true
	}
	if offer, ok := l.offers[mac]; ok && offer.Expires.After(now) && l.free(address(offer), mac, s, now) {
		return address(offer), nil, true
	}
	h := fnv.New32a()
	h.Write([]byte(mac))
	first, size := number(s.First), number(s.Last)-number(s.First)+1
	for i := range size {
		if ip := addr(first + (h.Sum32()%size+i)%size); l.free(ip, mac, s, now) {
			return ip, nil, true
		}
	}
	for _, lease := range l.All() {
		ended := !lease.Expires.After(now) && s.gives(address(lease)) && !l.resting(address(lease), now)
		if ended && !l.promised(address(lease), mac, now) && (reclaimed == nil || lease.Expires.Before(reclaimed.Expires)) {
			reclaimed = &lease
		}
	}
	if reclaimed == nil {
		return netip.Addr{}, nil, false
	}
	return address(*reclaimed), reclaimed, true
}

// promised says whether ip is on offer to somebody other than mac.
func (l *Leases) promised(ip netip.Addr, mac string, now time.Time) bool {
	to, ok := l.offeredTo[ip]
	return ok && to != mac && l.offers[to].Expires.After(now)
}

// gives says whether an address is one that machines get.
func (s Subnet) gives(ip netip.Addr) bool {
	if !ip.Is4() || ip.Less(s.First) || s.Last.Less(ip) || ip == s.Server || ip == s.Router {
		return false
	}
	host := number(ip) & (1<<(32-s.Prefix.Bits()) - 1)
	return host != 0 && host != 1<<(32-s.Prefix.Bits())-1
}

func address(l Lease) netip.Addr {
	ip, _ := netip.ParseAddr(l.IP)
	return ip
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func addr(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
