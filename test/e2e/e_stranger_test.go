// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"

	"metald.io/metald/test/lab/rack"
)

// A machine that nobody listed asks for its boot file as UEFI firmware does. It gets no answer, and becomes a Sighting.
func TestStrangerIsOnlySeen(t *testing.T) {
	const mac, port = "52:54:00:99:99:01", "stranger0"
	for _, args := range []string{
		"link add " + port + " address " + mac + " type veth peer name stranger1",
		"link set stranger1 master " + rack.Bridge + " up",
		"link set " + port + " up",
	} {
		if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields("-n "+lab.Name+" "+args)...).CombinedOutput(); err != nil {
			t.Fatalf("plugging the stranger in: %v: %s", err, out)
		}
	}
	defer exec.Command("ip", "-n", lab.Name, "link", "del", port).Run()
	if offer, err := ask(t.Context(), port, mac); err == nil {
		t.Errorf("a stranger was offered %s", offer.YourIPAddr)
	} else if !errors.Is(err, nclient4.ErrNoResponse) && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	eventually(t, "the stranger to be a Sighting", time.Minute, func() (bool, string) {
		now := metald(t, "host", "sightings")
		return strings.Contains(now, mac), now
	})
}

// ask sends a DISCOVER from a port inside the lab's namespace. Its thread is not used again: it stays in there.
func ask(ctx context.Context, port, mac string) (offer *dhcpv4.DHCPv4, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		ns, openErr := os.Open("/run/netns/" + lab.Name)
		if openErr != nil {
			err = openErr
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		hardware, _ := net.ParseMAC(mac)
		client, openErr := nclient4.New(port, nclient4.WithHWAddr(hardware), nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(2))
		if openErr != nil {
			err = openErr
			return
		}
		defer client.Close()
		offer, err = client.DiscoverOffer(ctx, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003001")))
	}()
	<-done
	return offer, err
}
