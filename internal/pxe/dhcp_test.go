// SPDX-License-Identifier: Apache-2.0

package pxe_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/internal/pxe"
	"metald.io/metald/internal/pxe/pxetest"
)

// TestScenarios plays each file of testdata/scenarios and compares what machines were told, what is on record, who was
// seen and what the log says, with what is below the line in it. UPDATE=1 writes it anew.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			script, want, _ := strings.Cut(string(text), "\n----\n")
			var got string
			synctest.Test(t, func(t *testing.T) { got = playScenario(t, script) })
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(file, []byte(script+"\n----\n"+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("scenario (-want +got):\n%s", diff)
			}
		})
	}
}

func playScenario(t *testing.T, script string) string {
	known := policy{
		"52:54:00:00:00:01": {Host: "h1", Hostname: "h1", File: "ramdisk.efi"},
		"52:54:00:00:00:02": {Host: "h2", Hostname: "h2"},
		"52:54:00:00:00:03": {Host: "h3", Hostname: "h3\nkernel", Digest: strings.Repeat("Z", 64), File: "../../etc/passwd"},
	}
	var before []func(*bench)
	if strings.Contains(script, "\nforeign ") {
		before = append(before, guarded(false))
	}
	h := newBench(t, subnet(), known, &book{leases: map[string]pxe.Lease{}, slow: time.Millisecond}, before...)
	ramdisk := known["52:54:00:00:00:01"]
	ramdisk.Digest = h.blobs.add(t, "a ramdisk")
	known["52:54:00:00:00:01"] = ramdisk
	var out strings.Builder
	for line := range strings.SplitSeq(script, "\n") {
		if err := h.player.Play(t.Context(), line, &out); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the server writes its log line after the answer
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	return out.String() + "\nleases:\n" + h.book.lines() + "\nseen:\n" + strings.Join(append(h.lookout.all(), ""), "\n") + "\nlog:\n" + h.log.String()
}

// A lease that is not durable is not acknowledged, and the machine is served as soon as the disk is well again.
func TestNoAckBeforeDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{leases: map[string]pxe.Lease{}, broken: errDiskFull}
		mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
		h := newBench(t, subnet(), policy{mac.String(): {Host: "h1"}}, b)
		c := pxetest.System(h.segment, mac, "")
		if _, err := c.Lease(t.Context()); err != pxetest.ErrSilence {
			t.Errorf("with a full disk: got error %v, want %v", err, pxetest.ErrSilence)
		}
		b.breakWith(nil)
		ack, err := c.Lease(t.Context())
		if err != nil {
			t.Fatalf("with a disk that is well: %v", err)
		}
		stored, _ := b.Leases(t.Context())
		if len(stored) != 1 || stored[0].IP != ack.YourIPAddr.String() {
			t.Errorf("got leases %v on record, want one of %s", stored, ack.YourIPAddr)
		}
	})
}

// All machines of a rack boot in the same second, on a disk that needs 20 ms for a lease: each gets an address of its
// own, before UEFI's first retry.
func TestRackBootsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := policy{}
		for i := range 100 {
			known[fmt.Sprintf("52:54:00:00:01:%02x", i)] = pxe.Answer{Host: fmt.Sprintf("h%d", i)}
		}
		h := newBench(t, subnet(), known, &book{leases: map[string]pxe.Lease{}, slow: 20 * time.Millisecond})
		start := time.Now()
		var mu sync.Mutex
		got := map[string]string{}
		var wg sync.WaitGroup
		for text := range known {
			wg.Go(func() {
				mac, _ := net.ParseMAC(text)
				ack, err := pxetest.Firmware(h.segment, mac, 16).Lease(t.Context())
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("%s: %v", text, err)
					return
				}
				if other := got[ack.YourIPAddr.String()]; other != "" {
					t.Errorf("%s and %s both got %s", text, other, ack.YourIPAddr)
				}
				got[ack.YourIPAddr.String()] = text
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("took %s, want less than the first retry", took)
		}
		if len(got) != len(known) {
			t.Errorf("%d machines have an address, want %d", len(got), len(known))
		}
	})
}

// A flood of unknown machines makes a bounded number of sightings, and known ones are served meanwhile.
func TestFloodOfUnknownMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
		h := newBench(t, subnet(), policy{mac.String(): {Host: "h1"}}, &book{leases: map[string]pxe.Lease{}})
		for i := range 5000 {
			c := pxetest.System(h.segment, net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}, "")
			c.Retries = []time.Duration{time.Millisecond}
			if _, err := c.Discover(t.Context()); err != pxetest.ErrSilence {
				t.Fatalf("unknown machine %d: got error %v, want %v", i, err, pxetest.ErrSilence)
			}
		}
		if n := len(h.lookout.all()); n != 1000 {
			t.Errorf("got %d sightings in 5 s, want 1000", n)
		}
		if _, err := pxetest.System(h.segment, mac, "").Lease(t.Context()); err != nil {
			t.Errorf("known machine: %v", err)
		}
	})
}

// Leases outlive the server: after a restart a machine has the address that is on record, which is not the one that it
// would be given anew. What another interface or an earlier subnet left there is passed over.
func TestRestartKeepsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
		soon := time.Now().Add(time.Minute)
		mine := pxe.Lease{Interface: "br0", MAC: mac.String(), IP: "172.22.0.150", Host: "h1", Expires: soon}
		b := &book{leases: map[string]pxe.Lease{
			"1": mine,
			"2": {Interface: "br1", MAC: mac.String(), IP: "172.22.0.151", Host: "h1", Expires: soon},
			"3": {Interface: "br0", MAC: "52:54:00:00:00:02", IP: "10.0.0.1", Host: "h2", Expires: soon},
			"4": {Interface: "br0", MAC: "52:54:00:00:00:03", IP: "no address", Expires: soon},
		}}
		h := newBench(t, subnet(), policy{mac.String(): {Host: "h1"}}, b)
		synctest.Wait()
		if diff := cmp.Diff([]pxe.Lease{mine}, h.Leases()); diff != "" {
			t.Errorf("leases after a restart (-want +got):\n%s", diff)
		}
		ack, err := pxetest.System(h.segment, mac, "").Lease(t.Context())
		if err != nil || ack.YourIPAddr.String() != mine.IP {
			t.Errorf("got %v, %v, want %s", ack, err, mine.IP)
		}
	})
}
