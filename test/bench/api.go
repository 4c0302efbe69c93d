// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sync/errgroup"

	"metald.io/metald/test/lab/rack"
)

const (
	apiHosts = 5000
	apiGets  = 500 // a second
	apiTime  = 5 * time.Second
	apiPath  = "/apis/metal3.io/v1alpha1/namespaces/default/baremetalhosts"
)

// apiReads measures reads of one host and of all, and the memory, beside what a user would run instead.
func apiReads(ctx context.Context, _ *rack.Rack, pairs int) (err error) {
	r, err := rack.New("bench", os.Stderr)
	if err != nil {
		return err
	}
	for _, program := range []string{r.Metald(), peerEtcd, r.Program("kube-apiserver"), r.Program("kubeadm")} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("a program is absent (make build etcd, go run ./test/lab build): %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "metald-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var doors []*apiDoor
	for _, start := range []func(context.Context, *rack.Rack, string) (*apiDoor, error){startDoor, startPeer} {
		d, err := start(ctx, r, dir)
		if err != nil {
			return err
		}
		defer d.stop()
		if err := d.fill(ctx, 0, apiHosts); err != nil {
			return fmt.Errorf("filling %s: %w", d.name, err)
		}
		doors = append(doors, d)
	}
	gets, lists, memory := [2][]float64{}, [2][]float64{}, [2]float64{}
	for range max(pairs, 9) {
		for n, d := range doors {
			late, err := d.gets(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			took, err := d.list(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			gets[n], lists[n] = append(gets[n], percentile(late, 99)), append(lists[n], took)
		}
	}
	for n, d := range doors {
		if memory[n], err = d.memory(); err != nil {
			return err
		}
		low, high := interval(trimmed(gets[n]))
		fmt.Printf("# %s: GET p99 %.2f ms (%.2f to %.2f), LIST %.0f ms, %.0f MiB\n", d.name, median(trimmed(gets[n])), low, high, median(trimmed(lists[n])), memory[n])
	}
	fmt.Printf("# %d BareMetalHosts with full status, the same client over TLS with a client certificate, %d GETs a second for %s a round;"+
		" durability: both D2\n", apiHosts, apiGets, apiTime)
	line := func(id, unit string, metald, peer float64) {
		fmt.Printf("BENCH %s metald=%.2f peer=%.2f ratio=%.3f unit=%s\n", id, metald, peer, metald/peer, unit)
	}
	line("P12", "ms", median(trimmed(gets[0])), median(trimmed(gets[1])))
	line("P12l", "ms", median(trimmed(lists[0])), median(trimmed(lists[1])))
	line("P12m", "MiB", memory[0], memory[1])
	if err := doors[0].fill(ctx, apiHosts, 2*apiHosts); err != nil {
		return fmt.Errorf("filling %s further: %w", doors[0].name, err)
	}
	if memory[0], err = doors[0].memory(); err != nil {
		return err
	}
	fmt.Printf("# %s with %d hosts: %.0f MiB\n", doors[0].name, 2*apiHosts, memory[0])
	return nil
}

// fill creates the hosts from one number to another and writes their status.
func (d *apiDoor) fill(ctx context.Context, from, to int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for n := from; n < to; n++ {
		group.Go(func() error {
			host := benchHost(n)
			body, err := json.Marshal(host)
			if err != nil {
				return err
			}
			made, err := d.client.Post().AbsPath(apiPath).SetHeader("Content-Type", "application/json").Body(body).DoRaw(ctx)
			if err != nil {
				return fmt.Errorf("creating %s: %w: %.300s", host.Name, err, made)
			}
			if body, err = json.Marshal(map[string]any{"status": host.Status}); err != nil {
				return err
			}
			out, err := d.client.Patch("application/merge-patch+json").AbsPath(apiPath, host.Name, "status").Body(body).DoRaw(ctx)
			if err != nil {
				return fmt.Errorf("writing the status of %s: %w: %.300s", host.Name, err, out)
			}
			return nil
		})
	}
	return group.Wait()
}

// gets asks for one host after the other at a steady rate, whether or not the last answers have come, and returns how long
// each took in ms.
func (d *apiDoor) gets(ctx context.Context) ([]float64, error) {
	var mu sync.Mutex
	var late []float64
	group, ctx := errgroup.WithContext(ctx)
	tick := time.NewTicker(time.Second / apiGets)
	defer tick.Stop()
	for n := range int(apiTime.Seconds() * apiGets) {
		<-tick.C
		group.Go(func() error {
			name := benchName(n * 7919 % apiHosts)
			start := time.Now()
			body, err := d.client.Get().AbsPath(apiPath, name).DoRaw(ctx)
			took := time.Since(start)
			if err != nil {
				return fmt.Errorf("reading %s: %w", name, err)
			}
			if !strings.Contains(string(body), `"name":"`+name+`"`) {
				return fmt.Errorf("reading %s: got another: %.200s", name, body)
			}
			mu.Lock()
			defer mu.Unlock()
			late = append(late, float64(took)/1e6)
			return nil
		})
	}
	return late, group.Wait()
}

// list reads all hosts in one request, counts them, and returns how long the answer took in ms.
func (d *apiDoor) list(ctx context.Context) (float64, error) {
	start := time.Now()
	body, err := d.client.Get().AbsPath(apiPath).DoRaw(ctx)
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("listing: %w", err)
	}
	if got := strings.Count(string(body), `"bootMACAddress":`); got != apiHosts {
		return 0, fmt.Errorf("listing: got %d hosts, want %d", got, apiHosts)
	}
	return float64(took) / 1e6, nil
}

func benchName(n int) string { return fmt.Sprintf("h%05d", n) }

// benchHost is a host as Metal3 shows one that runs: a server with two processors, eight NICs and ten drives.
func benchHost(n int) *metal3.BareMetalHost {
	now := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	h := &metal3.BareMetalHost{
		TypeMeta:   metav1.TypeMeta{APIVersion: "metal3.io/v1alpha1", Kind: "BareMetalHost"},
		ObjectMeta: metav1.ObjectMeta{Name: benchName(n), Namespace: "default", Labels: map[string]string{"metald.io/rack": fmt.Sprintf("r%d", n/20)}},
		Spec: metal3.BareMetalHostSpec{
			Online: true, BootMACAddress: fmt.Sprintf("52:54:00:%02x:%02x:%02x", n>>16, n>>8&255, n&255),
			BMC: metal3.BMCDetails{Address: fmt.Sprintf("redfish+https://10.%d.%d.%d/redfish/v1/Systems/1", n>>16, n>>8&255, n&255), CredentialsName: benchName(n) + "-bmc"},
		},
		Status: metal3.BareMetalHostStatus{
			OperationalStatus: metal3.OperationalStatusOK, PoweredOn: true, LastUpdated: &now,
			Provisioning: metal3.ProvisionStatus{State: metal3.StateProvisioned, ID: fmt.Sprintf("6d6574a1-0001-4002-8003-%012x", n)},
			HardwareDetails: &metal3.HardwareDetails{
				SystemVendor: metal3.HardwareSystemVendor{Manufacturer: "Example", ProductName: "G8", SerialNumber: fmt.Sprintf("S%07d", n)},
				RAMMebibytes: 2 << 20, Hostname: benchName(n), CPU: metal3.CPU{Arch: "x86_64", Model: "Example 9000", Count: 224},
			},
		},
	}
	for k := range 64 {
		h.Status.HardwareDetails.CPU.Flags = append(h.Status.HardwareDetails.CPU.Flags, fmt.Sprintf("flag%02d", k))
	}
	for k := range 8 {
		h.Status.HardwareDetails.NIC = append(h.Status.HardwareDetails.NIC, metal3.NIC{
			Name: fmt.Sprintf("ens%df0np0", k), Model: "0x15b3 0x1021", MAC: fmt.Sprintf("a0:88:c2:%02x:%02x:%02x", n>>8&255, n&255, k), SpeedGbps: 400,
		})
	}
	for k := range 10 {
		h.Status.HardwareDetails.Storage = append(h.Status.HardwareDetails.Storage, metal3.Storage{
			Name: fmt.Sprintf("/dev/nvme%dn1", k), Type: metal3.NVME, SizeBytes: 3840755982336, Model: "EXAMPLE NVMe",
			SerialNumber: fmt.Sprintf("D%05d%02d", n, k), WWN: fmt.Sprintf("eui.%016x", n*100+k),
		})
	}
	return h
}
