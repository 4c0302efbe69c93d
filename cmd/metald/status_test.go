// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *metav1.Time { return &metav1.Time{Time: noon.Add(-d)} }

func condition(kind string, status metav1.ConditionStatus, reason, message string, since time.Duration) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: *ago(since)}
}

func bmh(name string, state metal3.ProvisioningState, change func(h *metal3.BareMetalHost)) *metal3.BareMetalHost {
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "1-2-3"}}
	h.Spec.BMC.Address = "redfish://10.0.0.5:8443/redfish/v1/Systems/1"
	h.Spec.BootMACAddress = "52:54:00:00:00:01"
	h.Status.Provisioning.State = state
	if state != metal3.StateNone && state != metal3.StateRegistering {
		h.Status.GoodCredentials.Version = "7"
	}
	if change != nil {
		change(h)
	}
	return h
}

// rack is one host of every kind that a table must show well.
func rack() []hostView {
	return []hostView{
		view(bmh("r1n01", metal3.StateNone, nil), nil),
		view(bmh("r1n02", metal3.StateRegistering, func(h *metal3.BareMetalHost) {
			h.Status.ErrorMessage = "the BMC refused the login"
			h.Status.Conditions = []metav1.Condition{condition(v1alpha1.StalledCondition, metav1.ConditionTrue, "CredentialsRefused", "", time.Minute)}
		}), &v1alpha1.HostProgress{Status: v1alpha1.HostProgressStatus{
			Since:   ago(12 * time.Minute),
			Waiting: &v1alpha1.Waiting{For: "a change of Secret r1n02-bmc", Reason: "CredentialsRefused", Since: *ago(time.Minute), Until: ago(2 * time.Minute)},
		}}),
		view(bmh("r1n03", metal3.StateInspecting, func(h *metal3.BareMetalHost) {
			h.Status.PoweredOn = true
			h.Annotations = map[string]string{v1alpha1.PausedAnnotation: "root: cabling"}
		}), &v1alpha1.HostProgress{Status: v1alpha1.HostProgressStatus{
			Since: ago(90 * time.Second), Epoch: 1,
			Waiting: &v1alpha1.Waiting{For: "the agent's first report, which takes as long as the firmware trains its memory", Until: ago(-18 * time.Minute)},
		}}),
		view(ready(), readyProgress()),
		view(bmh("r1n05", metal3.StateProvisioned, func(h *metal3.BareMetalHost) {
			h.Status.PoweredOn = true
			h.Status.Conditions = []metav1.Condition{condition(v1alpha1.JoinedCondition, metav1.ConditionFalse, "NodeNotReady", "", time.Minute)}
		}), readyProgress()),
		writing(),
	}
}

// writing is a host whose image is being written, as the table shows it once the agent's words are added.
func writing() hostView {
	p := installed(nil)
	p.Status.State, p.Status.Since = "provisioning", ago(4*time.Minute)
	p.Status.Waiting = &v1alpha1.Waiting{For: "the agent to write the image to /dev/nvme0n1 (serial SN-D1): writing root-a of nvme0n1, 42 %",
		Reason: "Installing", Since: *ago(4 * time.Minute), Until: ago(-10 * time.Minute)}
	v := view(bmh("r1n06", metal3.StateProvisioning, func(h *metal3.BareMetalHost) { h.Status.PoweredOn = true }), p)
	v.agent(p.Status, agentAt(42))
	return v
}

// agentAt is an agent that has written for 20 s.
func agentAt(percent int64) *v1alpha1.AgentFacts {
	return &v1alpha1.AgentFacts{Mode: "ramdisk", Epoch: 2, FirstSeen: ago(25 * time.Second), ProgressAt: ago(5 * time.Second),
		Progress: &v1alpha1.StepProgress{Doing: "writing root-a of nvme0n1", Done: percent * 5_000_000, Total: 500_000_000}}
}

// installed is the progress of a host that runs from its disk, or where written is nil shall do so.
func installed(written *metav1.Time) *v1alpha1.HostProgress {
	p := readyProgress()
	p.Status.Deployment.Method = v1alpha1.InstallMethod
	p.Status.Deployment.Install = &v1alpha1.Installation{ID: "id-1", Written: written, Disk: v1alpha1.DiskTarget{
		Name: "nvme0n1", Model: "Example NVMe", SerialNumber: "SN-D1", SizeBytes: 1_920_383_410_176}}
	if written != nil {
		p.Status.Deployment.Install.Epoch = 1
	}
	p.Status.Phases = []v1alpha1.Phase{{Name: "write image", Start: *ago(9 * time.Minute), End: written}}
	return p
}

func ready() *metal3.BareMetalHost {
	return bmh("r1n04", metal3.StateProvisioned, func(h *metal3.BareMetalHost) {
		h.Status.PoweredOn = true
		h.Spec.Online = true
		h.Annotations = map[string]string{v1alpha1.TakenAnnotation: "root: lab"}
		h.Status.Conditions = []metav1.Condition{
			condition(metal3.ReadyCondition, metav1.ConditionTrue, "Provisioned", "", 3*time.Minute),
			condition(v1alpha1.JoinedCondition, metav1.ConditionTrue, "NodeReady", "Node r1n04 is Ready", 3*time.Minute),
		}
	})
}

func readyProgress() *v1alpha1.HostProgress {
	return &v1alpha1.HostProgress{Status: v1alpha1.HostProgressStatus{
		State: "provisioned", Since: ago(3 * time.Minute), Epoch: 2,
		Power:      &v1alpha1.PowerLease{Owner: "provision", Reason: "running the image", Epoch: 2, Since: *ago(5 * time.Minute)},
		Boot:       &v1alpha1.BootOrder{Answer: "image", Digest: strings.Repeat("ab", 32), Epoch: 2},
		Deployment: &v1alpha1.Deployment{Pool: "default/workers", Method: v1alpha1.DisklessMethod, Image: "debian-12", RootHash: strings.Repeat("cd", 32), Cluster: "default/lab"},
		Join:       &v1alpha1.JoinGrant{TokenID: "abcdef", Approved: "csr-1"},
		Phases: []v1alpha1.Phase{
			{Name: "registering", Start: *ago(10 * time.Minute), End: ago(10*time.Minute - 1500*time.Millisecond)},
			{Name: "joining", Start: *ago(30 * time.Second)},
		},
	}}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", path, diff)
	}
}

func TestStatusTable(t *testing.T) {
	tests := []struct {
		file    string
		options statusOptions
	}{
		{"table.txt", statusOptions{}},
		{"wide.txt", statusOptions{output: output{format: "wide", noHeaders: true}, all: true}},
		{"names.txt", statusOptions{output: output{format: "name"}}},
		{"list.json", statusOptions{output: output{format: "json"}}},
		{"ready.txt", statusOptions{output: output{format: `jsonpath={range .items[?(@.ready==true)]}{.metadata.name}={.node}{"\n"}{end}`}}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			var got bytes.Buffer
			if err := tt.options.print(&got, rack(), noon); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.file, got.String())
		})
	}
}

func TestHostPage(t *testing.T) {
	event := func(reason, message string, before time.Duration) corev1.Event {
		return corev1.Event{Type: "Normal", Reason: reason, Message: message, LastTimestamp: *ago(before)}
	}
	full := hostPage{
		host:     ready(),
		progress: readyProgress(),
		inventory: &v1alpha1.HostInventory{Status: v1alpha1.HostInventoryStatus{
			Identity: &v1alpha1.Identity{
				EKSHA256: strings.Repeat("ee", 32), BMCCertificateSHA256: strings.Repeat("11", 32), BMCCertificatePinned: ago(10 * time.Minute),
				SystemUUID: "4c4c4544-0000", SerialNumber: "SN1", BootMAC: "52:54:00:00:00:01",
			},
			BMC: &v1alpha1.BMCFacts{Manufacturer: "Example", Model: "X1", BIOSVersion: "2.1", BMCVersion: "7.0", CertificateSHA256: strings.Repeat("22", 32)},
			Agent: &v1alpha1.AgentFacts{Mode: "os", Version: "v0.1", Proof: "tpm", LastSeen: ago(5 * time.Second), Refusal: &v1alpha1.Refusal{
				At: *ago(time.Minute), Reason: "TPMChanged", Message: "another TPM has this MAC", RemoteIP: "172.22.0.101"}},
		}},
		events: []corev1.Event{event("Ready", "the Node is Ready", 3*time.Minute), event("Registered", "the BMC\nanswers", 10*time.Minute)},
	}
	waiting := hostPage{
		host: bmh("r1n02", metal3.StateRegistering, func(h *metal3.BareMetalHost) { h.Status.ErrorMessage = "the BMC refused the login" }),
		progress: &v1alpha1.HostProgress{Status: v1alpha1.HostProgressStatus{
			Since: ago(12 * time.Minute), Attempts: 3, NextTry: ago(-time.Minute),
			Waiting: &v1alpha1.Waiting{For: "a change of Secret r1n02-bmc", Until: ago(-18 * time.Minute), Action: "write the right password into Secret r1n02-bmc"},
		}},
	}
	onDisk := hostPage{
		host:     ready(),
		progress: installed(ago(8 * time.Minute)),
		pauses:   pauses{all: "root: power work"},
		inventory: &v1alpha1.HostInventory{Status: v1alpha1.HostInventoryStatus{Agent: &v1alpha1.AgentFacts{Mode: "os", Epoch: 2, Slot: "a",
			Facts: &v1alpha1.HostFacts{Disks: []v1alpha1.DiskFacts{
				{Name: "nvme0n1", Model: "Example NVMe", SerialNumber: "SN-D1", SizeBytes: 1_920_383_410_176, Transport: "nvme"},
				{Name: "sda", WWN: "0x5000c500a1b2c3d4", SizeBytes: 480_103_981_056, Transport: "sata", Rotational: true, Partitions: 3}}}}}},
	}
	written := hostPage{
		host:      bmh("r1n06", metal3.StateProvisioning, nil),
		progress:  installed(nil),
		inventory: &v1alpha1.HostInventory{Status: v1alpha1.HostInventoryStatus{Agent: agentAt(42)}},
	}
	leaving := hostPage{
		host: bmh("r1n02", metal3.StateDeprovisioning, nil),
		progress: &v1alpha1.HostProgress{Status: v1alpha1.HostProgressStatus{Since: ago(12 * time.Minute), Epoch: 3,
			Leaving: &v1alpha1.Leaving{Since: *ago(12 * time.Minute), DrainUntil: *ago(2 * time.Minute), Cordoned: ago(12 * time.Minute), Drained: ago(2 * time.Minute),
				Removed: ago(time.Minute), Stopped: ago(50 * time.Second), LeftBehind: []string{"default/stuck: its budget allows no disruption"}, Cleaning: "full"},
			Erase: &v1alpha1.Erase{Mode: "full", Epoch: 3, Begun: *ago(40 * time.Second), Ended: ago(10 * time.Second), Drives: []v1alpha1.DriveErasure{
				{Name: "nvme0n1", SerialNumber: "SN-D1", Method: "nvme-format-crypto", Tried: []string{"nvme-sanitize-crypto: not supported"},
					Started: *ago(30 * time.Second), Ended: ago(28 * time.Second), Verified: "read 64 MiB in 64 places, all zero", OK: true},
				{Name: "sda", SerialNumber: "SN-D2", Method: "overwrite", Started: *ago(30 * time.Second), Ended: ago(11 * time.Second), Error: "input/output error\nat byte 4096"},
			}}}},
	}
	draining := hostPage{
		host: bmh("r1n03", metal3.StateDeprovisioning, nil),
		progress: &v1alpha1.HostProgress{Status: v1alpha1.HostProgressStatus{Since: ago(2 * time.Minute),
			Leaving: &v1alpha1.Leaving{Since: *ago(2 * time.Minute), DrainUntil: *ago(-8 * time.Minute), Cordoned: ago(2 * time.Minute), Cleaning: "disabled"},
			Erase:   &v1alpha1.Erase{Mode: "disabled", Begun: *ago(time.Hour), Ended: ago(time.Hour)}}},
	}
	for file, page := range map[string]hostPage{"ready-host.txt": full, "waiting-host.txt": waiting, "disk-host.txt": onDisk, "writing-host.txt": written,
		"leaving-host.txt": leaving, "draining-host.txt": draining} {
		t.Run(file, func(t *testing.T) {
			var got bytes.Buffer
			if err := page.print(&got, noon); err != nil {
				t.Fatal(err)
			}
			golden(t, file, got.String())
		})
	}
}

// A host is told anew when something of it changed, and not because time went by.
func TestWatchLines(t *testing.T) {
	var o statusOptions
	shown := map[string]string{}
	count := func(views []hostView) int {
		var got bytes.Buffer
		if err := o.lines(&got, views, shown); err != nil {
			t.Fatal(err)
		}
		return strings.Count(got.String(), "\n")
	}
	views := rack()
	if got := count(views); got != len(views) {
		t.Errorf("first look: got %d lines, want %d", got, len(views))
	}
	if got := count(rack()); got != 0 {
		t.Errorf("nothing changed: got %d lines, want none", got)
	}
	views[2].Power = "Off"
	views[4].NodeReady = true
	if got := count(views); got != 2 {
		t.Errorf("two changed: got %d lines, want 2", got)
	}
}
