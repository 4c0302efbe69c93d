// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

const (
	// lookEvery is how often new devices and links are looked for: cards come up late, cables are plugged in.
	lookEvery = 250 * time.Millisecond
	// tryFirst and tryMost bound how long one DISCOVER waits for its offer; it doubles (RFC 2131, 4.1).
	tryFirst = 2 * time.Second
	tryMost  = 16 * time.Second
)

// Say is told what goes on, for a person at the console.
type Say func(format string, args ...any)

// Acquire brings all physical network devices up and asks for a lease on each that has a link, until a metald answers.
// It does not give up: it ends with the lease or with ctx. systemUUID goes with each request, so that a server that does
// not know the device's address may know the machine.
func Acquire(ctx context.Context, systemUUID string, say Say) (Lease, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan Lease)
	asking := map[string]bool{}
	start, told := time.Now(), time.Time{}
	for {
		devices, err := bringUp()
		if err != nil {
			say("looking for network devices: %v", err)
		}
		for _, d := range devices {
			if d.link && !asking[d.name] {
				asking[d.name] = true
				say("%s (%s) has a link: asking for an address", d.name, d.mac)
				go ask(ctx, d, systemUUID, found, say)
			}
		}
		if waited := time.Since(start); waited > 10*time.Second && time.Since(told) > 30*time.Second {
			told = time.Now()
			say("no address from metald after %.0f s: %s", waited.Seconds(), describe(devices))
		}
		select {
		case lease := <-found:
			return lease, nil
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

type device struct {
	name string
	mac  net.HardwareAddr
	link bool
}

// describe says what a person should look at.
func describe(devices []device) string {
	if len(devices) == 0 {
		return "this machine shows no network device; is its driver in the ramdisk?"
	}
	var parts []string
	for _, d := range devices {
		state := "no link"
		if d.link {
			state = "link, no answer"
		}
		parts = append(parts, fmt.Sprintf("%s %s (%s)", d.name, d.mac, state))
	}
	return strings.Join(parts, ", ") + "; is the machine listed, and is DHCP configured for its network?"
}

// bringUp sets every physical Ethernet device up and says which have a link.
func bringUp() ([]device, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var devices []device
	for _, link := range links {
		a := link.Attrs()
		if a.Name == "lo" && a.Flags&net.FlagUp == 0 {
			err = errors.Join(err, netlink.LinkSetUp(link))
		}
		if !physical(a.Name) || len(a.HardwareAddr) != 6 {
			continue
		}
		if a.Flags&net.FlagUp == 0 {
			if upErr := netlink.LinkSetUp(link); upErr != nil {
				err = errors.Join(err, fmt.Errorf("bringing %s up: %w", a.Name, upErr))
				continue
			}
		}
		carrier, readErr := os.ReadFile("/sys/class/net/" + a.Name + "/carrier")
		devices = append(devices, device{
			name: a.Name, mac: a.HardwareAddr, link: readErr == nil && strings.TrimSpace(string(carrier)) == "1",
		})
	}
	return devices, err
}

// physical says whether hardware is behind a device, and not a virtual function of a card that is listed itself.
func physical(name string) bool {
	dir := filepath.Join("/sys/class/net", name, "device")
	if _, err := os.Stat(dir); err != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "physfn"))
	return err != nil
}

// ask asks on one device until it gets a lease or ctx ends.
func ask(ctx context.Context, d device, systemUUID string, found chan<- Lease, say Say) {
	for wait := tryFirst; ctx.Err() == nil; wait = min(2*wait, tryMost) {
		lease, err := exchange(ctx, d, systemUUID, wait, say)
		if err == nil {
			select {
			case found <- lease:
			case <-ctx.Done():
			}
			return
		}
		if !errors.Is(err, nclient4.ErrNoResponse) && ctx.Err() == nil {
			say("asking for an address on %s: %v", d.name, err)
		}
		select { // a rack that powers on must not ask as one
		case <-ctx.Done():
		case <-time.After(rand.N(time.Second)):
		}
	}
}

// exchange is one round of DISCOVER, OFFER, REQUEST and ACK.
func exchange(ctx context.Context, d device, systemUUID string, wait time.Duration, say Say) (Lease, error) {
	client, err := nclient4.New(d.name, nclient4.WithTimeout(wait), nclient4.WithRetry(1))
	if err != nil {
		return Lease{}, err
	}
	defer client.Close()
	modifiers := request(systemUUID)
	discover, err := dhcpv4.NewDiscovery(d.mac, dhcpv4.PrependModifiers(modifiers,
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)))...)
	if err != nil {
		return Lease{}, err
	}
	offer, err := client.SendAndRead(ctx, client.RemoteAddr(), discover, func(p *dhcpv4.DHCPv4) bool {
		if p.MessageType() != dhcpv4.MessageTypeOffer {
			return false
		}
		if !ours(p) {
			say("a DHCP server that is not metald answers on %s: %s; its offer is left alone", d.name, p.ServerIdentifier())
		}
		return ours(p)
	})
	if err != nil {
		return Lease{}, err
	}
	granted, err := client.RequestFromOffer(ctx, offer, modifiers...)
	if err != nil {
		return Lease{}, err
	}
	return leaseOf(d.name, granted.ACK, time.Now())
}
