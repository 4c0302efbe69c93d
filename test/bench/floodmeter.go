// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"metald.io/metald/internal/pxe"
)

// floodTimes are how long things took, in ms: a GET, a DISCOVER until its OFFER, and a whole lease until its ACK.
type floodTimes struct {
	get, offer, lease []float64
	cpu               float64 // that the daemon used, in seconds
}

func (t floodTimes) String() string {
	say := func(name string, ms []float64) string {
		return fmt.Sprintf("%s p50 %.2f p99 %.2f max %.2f ms (%d)", name, percentile(ms, 50), percentile(ms, 99), percentile(ms, 100), len(ms))
	}
	return say("GET", t.get) + ", " + say("OFFER", t.offer) + ", " + say("lease", t.lease)
}

// noAnswer is when UEFI's firmware asks for the second time.
const noAnswer = 4 * time.Second

var errNoAnswer = fmt.Errorf("no answer within %s", noAnswer)

// floodMeter asks as others do while the flood goes on.
type floodMeter struct {
	client *rest.RESTClient
	wire   *pxe.PacketWire
	stop   context.CancelFunc
	heard  sync.Map // chan *dhcpv4.DHCPv4, by transaction
}

func newFloodMeter(ctx context.Context, d *apiDoor, login string) (*floodMeter, error) {
	config, err := clientcmd.BuildConfigFromFlags("", login)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Timeout = -1, time.Minute
	config.GroupVersion = &schema.GroupVersion{Version: "v1"}
	config.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	m := &floodMeter{}
	if m.client, err = rest.UnversionedRESTClientFor(config); err != nil {
		return nil, err
	}
	if m.wire, err = pxe.ListenWire("host0"); err != nil {
		return nil, err
	}
	ctx, m.stop = context.WithCancel(ctx)
	go func() {
		packet := make([]byte, 1500)
		for ctx.Err() == nil {
			n, _, _, err := m.wire.Hear(ctx, packet)
			if err != nil {
				continue
			}
			if answer, err := dhcpv4.FromBytes(packet[:n]); err == nil {
				if to, ok := m.heard.LoadAndDelete(answer.TransactionID); ok {
					to.(chan *dhcpv4.DHCPv4) <- answer
				}
			}
		}
	}()
	// DHCP is served once the mind has read its hosts.
	for range 300 {
		if _, _, err = m.lease(ctx, 0); err == nil {
			return m, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.close()
	return nil, fmt.Errorf("waiting for DHCP: %w", err)
}

func (m *floodMeter) close() {
	m.stop()
	_ = m.wire.Close()
}

// round measures for floodRound. Neither waits for its last answer before it asks again.
func (m *floodMeter) round(ctx context.Context, into *floodTimes) error {
	var mutex sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	pace := func(each time.Duration, do func(n int) error) {
		group.Go(func() error {
			tick := time.NewTicker(each)
			defer tick.Stop()
			for n := range int(floodRound / each) {
				select {
				case <-tick.C:
					group.Go(func() error { return do(n) })
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	}
	pace(time.Second/floodGets, func(n int) error {
		start := time.Now()
		err := m.client.Get().AbsPath(apiPath, benchName(n%floodHosts)).Do(ctx).Error()
		took := time.Since(start)
		if err != nil {
			return fmt.Errorf("reading a host: %w", err)
		}
		mutex.Lock()
		defer mutex.Unlock()
		into.get = append(into.get, float64(took)/1e6)
		return nil
	})
	pace(time.Second/floodDHCP, func(n int) error {
		offer, whole, err := m.lease(ctx, n%floodHosts)
		if errors.Is(err, errNoAnswer) { // its firmware would ask again: that it had to is the finding
			offer, whole, err = noAnswer, noAnswer, nil
		}
		if err != nil {
			return fmt.Errorf("leasing an address: %w", err)
		}
		mutex.Lock()
		defer mutex.Unlock()
		into.offer, into.lease = append(into.offer, float64(offer)/1e6), append(into.lease, float64(whole)/1e6)
		return nil
	})
	return group.Wait()
}

// lease goes through DISCOVER, OFFER, REQUEST and ACK as a host's firmware does, without asking twice.
func (m *floodMeter) lease(ctx context.Context, n int) (offered, whole time.Duration, err error) {
	mac, err := net.ParseMAC(benchHost(n).Spec.BootMACAddress)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	offer, err := m.ask(ctx, dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))
	if err != nil {
		return 0, 0, err
	}
	offered = time.Since(start)
	ack, err := m.ask(ctx, dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)), dhcpv4.WithOptionCopied(offer, dhcpv4.OptionServerIdentifier))
	if err != nil {
		return 0, 0, err
	}
	if ack.MessageType() != dhcpv4.MessageTypeAck {
		return 0, 0, fmt.Errorf("got %s, want an ACK", ack.MessageType())
	}
	return offered, time.Since(start), nil
}

func (m *floodMeter) ask(ctx context.Context, mods ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	packet, err := dhcpv4.New(append(mods, dhcpv4.WithBroadcast(true))...)
	if err != nil {
		return nil, err
	}
	answer := make(chan *dhcpv4.DHCPv4, 1)
	m.heard.Store(packet.TransactionID, answer)
	if err := m.wire.Broadcast(packet.ToBytes()); err != nil {
		return nil, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-time.After(noAnswer):
		m.heard.Delete(packet.TransactionID)
		return nil, errNoAnswer
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
