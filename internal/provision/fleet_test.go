// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/cluster"
	"metald.io/metald/internal/inventory"
)

// hall is many machines that run what they should, each behind a BMC of its own.
type hall struct {
	mu    sync.Mutex
	reads int // of power
}

func (h *hall) Certificate(context.Context, bmc.Address) (string, *x509.Certificate, error) {
	return hex64, nil, nil
}
func (h *hall) Dial(context.Context, bmc.Target) (bmc.Controller, error)     { return hallBMC{h}, nil }
func (h *hall) Sweep(context.Context, []netip.Prefix, func(bmc.Found)) error { return nil }

type hallBMC struct{ h *hall }

func (hallBMC) Close(context.Context) error                          { return nil }
func (hallBMC) Identity(context.Context) (bmc.Identity, error)       { return bmc.Identity{}, nil }
func (hallBMC) NetworkBoot(context.Context) (bmc.BootTarget, error)  { return bmc.BootHTTP, nil }
func (hallBMC) OneTimeBoot(context.Context) (bmc.BootTarget, error)  { return "", nil }
func (hallBMC) SetOneTimeBoot(context.Context, bmc.BootTarget) error { return nil }
func (hallBMC) Switch(context.Context, bmc.PowerAction) error        { return nil }
func (b hallBMC) Power(context.Context) (bmc.PowerState, error) {
	b.h.mu.Lock()
	defer b.h.mu.Unlock()
	b.h.reads++
	return bmc.On, nil
}

func hallName(n int) string { return fmt.Sprintf("n%05d", n) }

// fillHall writes hosts that run diskless as Nodes of one cluster, and are Ready, as the mind leaves them.
func fillHall(t testing.TB, store *inventory.Store, control *plane, hosts int) {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secret := func(name string, data map[string]string) {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, StringData: data}
		_, err := store.Secrets().Create(ctx, s)
		must(err)
	}
	secret("kc", map[string]string{"kubeconfig": "x"})
	_, err := store.Clusters().Create(ctx, &v1alpha1.KubernetesCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "prod"},
		Spec: v1alpha1.KubernetesClusterSpec{KubeconfigSecret: "kc"}})
	must(err)
	_, err = store.Pools().Create(ctx, &v1alpha1.NodePool{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "workers"},
		Spec: v1alpha1.NodePoolSpec{Replicas: int32(hosts), Method: "diskless", Image: "node", Cluster: "prod"}})
	must(err)
	var wg sync.WaitGroup
	next := make(chan int)
	for range 32 { // commits are shared
		wg.Go(func() {
			for n := range next {
				fillHost(t, store, n, secret)
			}
		})
	}
	for n := range hosts {
		next <- n
		name := hallName(n)
		control.nodes[name] = cluster.NodeState{Name: name, Ready: true, BootID: "boot-" + name, Labels: map[string]string{
			v1alpha1.PoolLabel: "workers", v1alpha1.HostLabel: "default." + name, v1alpha1.ImageLabel: "node"}}
	}
	close(next)
	wg.Wait()
}

func fillHost(t testing.TB, store *inventory.Store, n int, secret func(string, map[string]string)) {
	ctx, name, now := context.Background(), hallName(n), metav1.Now()
	digest := "11" + hex64[2:]
	secret(name+"-bmc", map[string]string{"username": "admin", "password": "right"})
	mac := fmt.Sprintf("52:54:00:%02x:%02x:%02x", n>>16, n>>8&255, n&255)
	h, err := store.Hosts().Create(ctx, &metal3.BareMetalHost{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Finalizers: []string{v1alpha1.HostFinalizer},
			Labels: map[string]string{v1alpha1.PoolLabel: "workers"}},
		Spec: metal3.BareMetalHostSpec{BootMACAddress: mac, Online: true, Architecture: "x86_64",
			BMC:          metal3.BMCDetails{Address: fmt.Sprintf("redfish://10.0.%d.%d/redfish/v1/Systems/1", n>>8, n&255), CredentialsName: name + "-bmc"},
			ConsumerRef:  &corev1.ObjectReference{Kind: "NodePool", Namespace: "default", Name: "workers"},
			CustomDeploy: &metal3.CustomDeploy{Method: v1alpha1.DisklessMethod}},
		Status: metal3.BareMetalHostStatus{Provisioning: metal3.ProvisionStatus{State: metal3.StateProvisioned}}})
	if err != nil {
		t.Error(err)
		return
	}
	meta := metav1.ObjectMeta{Namespace: "default", Name: name, OwnerReferences: []metav1.OwnerReference{ownerRef(h)}}
	facts := &v1alpha1.HostFacts{CPU: v1alpha1.CPUFacts{Architecture: "amd64", Threads: 224, Flags: make([]string, 120)}}
	for i := range facts.CPU.Flags {
		facts.CPU.Flags[i] = fmt.Sprint("flag", i)
	}
	for i := range 10 {
		facts.NICs = append(facts.NICs, v1alpha1.NICFacts{Name: fmt.Sprint("eth", i), MAC: mac, SpeedMbps: 400000})
		facts.Disks = append(facts.Disks, v1alpha1.DiskFacts{Name: fmt.Sprint("nvme", i, "n1"), SerialNumber: fmt.Sprint("D", i), SizeBytes: 8 << 40})
	}
	facts.System.UUID = fmt.Sprintf("11111111-2222-3333-4444-%012d", n)
	_, err = store.Inventories().Create(ctx, &v1alpha1.HostInventory{ObjectMeta: meta, Status: v1alpha1.HostInventoryStatus{
		Identity: &v1alpha1.Identity{SystemUUID: facts.System.UUID, SerialNumber: name, BMCCertificateSHA256: hex64},
		BMC:      &v1alpha1.BMCFacts{Manufacturer: "Acme", Power: "On", Seen: &now},
		Agent: &v1alpha1.AgentFacts{Mode: v1alpha1.OSMode, BootID: "boot-" + name, Epoch: 2, Inspected: 1, Proof: "tpm", Facts: facts,
			Steps: []v1alpha1.StepResult{{Step: v1alpha1.JoinStep, Epoch: 2, OK: true}}},
	}})
	if err == nil {
		_, err = store.Progresses().Create(ctx, &v1alpha1.HostProgress{ObjectMeta: meta, Status: v1alpha1.HostProgressStatus{
			State: string(metal3.StateProvisioned), Since: &now, Epoch: 2,
			Boot:       &v1alpha1.BootOrder{Answer: bootImage, Digest: digest, Epoch: 2, Ordered: now, Deadline: metav1.NewTime(now.Add(5 * time.Minute))},
			Deployment: &v1alpha1.Deployment{Pool: "default/workers", Method: v1alpha1.DisklessMethod, Image: "node", UKI: digest, Cluster: "default/prod"},
			Join:       &v1alpha1.JoinGrant{TokenID: "tok", Epoch: 2, BootID: "boot-" + name, Approved: "csr", Used: &now},
			Phases: []v1alpha1.Phase{{Name: "registering", Start: now, End: &now}, {Name: "inspecting", Start: now, End: &now},
				{Name: "provisioning", Start: now, End: &now}},
		}})
	}
	if err != nil {
		t.Error(err)
	}
}

// hallMind makes a mind for a hall.
func hallMind(store *inventory.Store, control Cluster, bmcs BMCs) *Mind {
	return New(Config{
		Store: store, Images: blobs{}, BMCs: bmcs,
		Connect: func([]byte, string) (Cluster, error) { return control, nil },
		Limits:  Limits{Boot: 5 * time.Minute, Join: 10 * time.Minute, Poll: 30 * time.Second, DestructivePerHour: -1},
		Logger:  slog.New(slog.DiscardHandler), Now: time.Now,
	})
}

// BenchmarkQuietVisit is the mind's look at a Ready host at which nothing has changed.
func BenchmarkQuietVisit(b *testing.B) {
	store, err := inventory.Open(b.TempDir(), inventory.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	control := newPlane()
	fillHall(b, store, control, 100)
	m := hallMind(store, control, &hall{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-m.Synced()
	time.Sleep(2 * time.Second) // its own first visits
	before, err := store.Hosts().Get(ctx, "default", hallName(7))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.host(ctx, "default/"+hallName(7)); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	after, err := store.Hosts().Get(ctx, "default", hallName(7))
	if err != nil || after.ResourceVersion != before.ResourceVersion || after.Status.OperationalStatus != metal3.OperationalStatusOK {
		b.Fatalf("the visit was not quiet: version %s, then %s: %+v, %v", before.ResourceVersion, after.ResourceVersion, after.Status, err)
	}
}
