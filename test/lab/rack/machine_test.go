// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpec(t *testing.T) {
	r := testRack(t)
	r.Hosts = 3
	seen := map[string]string{}
	for n := range r.Hosts {
		s := r.Spec(n)
		if diff := cmp.Diff(s, r.Spec(n)); diff != "" {
			t.Errorf("machine %d differs from call to call:\n%s", n, diff)
		}
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(s.UUID) {
			t.Errorf("%s: UUID %s is not of version 8, variant 1", s.Name, s.UUID)
		}
		if mac, err := net.ParseMAC(s.MAC); err != nil || mac[0]&3 != 2 {
			t.Errorf("%s: MAC %s is not a locally administered unicast address", s.Name, s.MAC)
		}
		if len(s.Tap) > 15 {
			t.Errorf("%s: device name %s is longer than Linux allows", s.Name, s.Tap)
		}
		for _, evidence := range []string{s.MAC, s.UUID, s.Serial, s.BMC, s.Tap} {
			if other := seen[evidence]; other != "" {
				t.Errorf("%s and %s share %s", s.Name, other, evidence)
			}
			seen[evidence] = s.Name
		}
		if found, err := r.SpecOf(s.Name); err != nil || found.Index != n {
			t.Errorf("SpecOf(%s) = machine %d, %v", s.Name, found.Index, err)
		}
	}
	if _, err := r.SpecOf("r9n99"); err == nil || !strings.Contains(err.Error(), "r1n00") {
		t.Errorf("the error for an unknown machine does not name those that exist: %v", err)
	}
}

func TestArguments(t *testing.T) {
	r := testRack(t)
	r.Dir = filepath.Join(r.Dir, "a dir, with a comma")
	for _, c := range []struct {
		machine   int
		once      string
		wantFirst bool
		wantDisk  string
	}{
		{0, bootHTTP, true, "virtio-blk-pci"}, {0, bootNone, false, "virtio-blk-pci"}, {0, bootDisk, false, "virtio-blk-pci"}, {0, bootPXE, false, "virtio-blk-pci"},
		{1, bootPXE, true, "virtio-blk-pci"}, {1, bootNone, false, "virtio-blk-pci"}, {1, bootHTTP, false, "virtio-blk-pci"},
		{2, bootPXE, true, "nvme"}, {2, bootDisk, false, "nvme"},
	} {
		m := &Machine{rack: r, spec: r.Spec(c.machine)}
		arguments := m.arguments(c.once)
		var nic, disk, pxe string
		for _, a := range arguments {
			switch {
			case strings.HasPrefix(a, "virtio-net-pci"):
				nic = a
			case strings.Contains(a, "id=disk0"):
				disk = a
			case strings.Contains(a, "IPv4PXESupport"):
				pxe = a
			}
			if strings.Contains(a, "with a comma") && !strings.Contains(a, "a dir,, with a comma") {
				t.Errorf("a comma in a path would end the value: %s", a)
			}
		}
		if got := strings.Contains(nic, "bootindex=0"); got != c.wantFirst {
			t.Errorf("%s, one-time boot %s: network device is %q, first in the boot list: %t, want %t", m.spec.Name, c.once, nic, got, c.wantFirst)
		}
		if !strings.Contains(nic, "romfile=,") {
			t.Errorf("QEMU's own boot ROM is not taken away: %s", nic)
		}
		if !strings.HasPrefix(disk, c.wantDisk+",") || !strings.Contains(disk, "serial="+m.spec.DiskSerial()+",") {
			t.Errorf("%s: the disk is %q, want a %s with serial number %s", m.spec.Name, disk, c.wantDisk, m.spec.DiskSerial())
		}
		if got := strings.HasSuffix(pxe, "string=y"); got != (m.spec.Network == bootPXE) {
			t.Errorf("%s boots by %s, and its firmware is told %s", m.spec.Name, m.spec.Network, pxe)
		}
	}
}

// fakeQEMU speaks the protocol as QEMU's documentation has it: greeting, replies by id, events in between.
func fakeQEMU(t *testing.T) (path string, done chan []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "qmp")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	done = make(chan []string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var met []string
		defer func() { done <- met }()
		fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": []}}`)
		for scan := bufio.NewScanner(conn); scan.Scan(); {
			var request struct {
				Execute string `json:"execute"`
				ID      int    `json:"id"`
			}
			if json.Unmarshal(scan.Bytes(), &request) != nil {
				return
			}
			met = append(met, request.Execute)
			fmt.Fprintln(conn, `{"event": "RESET", "data": {"guest": false}}`)
			switch request.Execute {
			case "explode":
				fmt.Fprintf(conn, `{"id": %d, "error": {"class": "GenericError", "desc": "no such fuse"}}`+"\n", request.ID)
			case "quit":
				return
			default:
				fmt.Fprintf(conn, `{"id": %d, "return": {}}`+"\n", request.ID)
			}
		}
	}()
	return path, done
}

func TestQMP(t *testing.T) {
	path, done := fakeQEMU(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	events := make(chan string, 16)
	q, err := dialQMP(ctx, path, func(e string) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	if err := q.do(ctx, "cont", nil); err != nil {
		t.Errorf("cont: %v", err)
	}
	if err := q.do(ctx, "explode", nil); err == nil || !strings.Contains(err.Error(), "no such fuse") {
		t.Errorf("explode: %v, want QEMU's own words", err)
	}
	if err := q.do(ctx, "quit", nil); err == nil {
		t.Error("quit: no error although QEMU went without an answer")
	}
	if q.alive() {
		t.Error("the connection counts as alive after QEMU went")
	}
	if diff := cmp.Diff([]string{"qmp_capabilities", "cont", "explode", "quit"}, <-done); diff != "" {
		t.Errorf("commands met (-want +got):\n%s", diff)
	}
	for range 4 {
		if e := <-events; e != "RESET" {
			t.Errorf("event %s, want RESET", e)
		}
	}
}

func TestQMPAbsent(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := dialQMP(ctx, filepath.Join(t.TempDir(), "none"), func(string) {}); err == nil {
		t.Error("connecting to nothing succeeded")
	}
}

// A QEMU that was killed leaves a connection that seems alive for a moment. Its machine is off all the same, and takes a
// boot order for its next start.
func TestKilledMachineIsOff(t *testing.T) {
	r := testRack(t)
	spec := r.Spec(0)
	if err := os.MkdirAll(r.Path("machines", spec.Name), 0o755); err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	m := &Machine{rack: r, spec: spec, qemu: &qmp{conn: ours, waiting: map[int]chan qmpReply{}, closed: make(chan struct{})}}
	if on, err := m.Powered(t.Context()); on || err != nil {
		t.Errorf("Powered() = %v, %v; want off: there is no such process", on, err)
	}
	if err := m.SetBootOnce(t.Context(), spec.Network); err != nil {
		t.Errorf("SetBootOnce() = %v", err)
	}
	if once, err := m.BootOnce(t.Context()); err != nil || once != spec.Network {
		t.Errorf("BootOnce() = %q, %v; want %q", once, err, spec.Network)
	}
}
