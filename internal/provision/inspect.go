// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
)

// inspect boots the ramdisk and waits for what its agent sees.
func (s *step) inspect(ctx context.Context) outcome {
	if !s.mayTouch() && s.bmc().Power != "Off" {
		return s.holdOff()
	}
	if s.bootMAC() == "" {
		return stuck(metal3.InspectionError, "NoBootMAC", errors.New("spec.bootMACAddress is empty, so the machine cannot be told from a stranger"),
			"set spec.bootMACAddress to the MAC address of the port it boots from")
	}
	ramdisk, err := s.ramdisk()
	if err != nil {
		return stuck(metal3.InspectionError, "NoRamdisk", err, "metald image ramdisk --data-dir DIR")
	}
	digest := ramdisk.SHA256
	if order := s.Progress.Status.Boot; order != nil && order.Answer == bootRamdisk && order.Epoch == s.epoch() {
		digest = order.Digest // a new ramdisk counts from the next boot on
	}
	if done, out := s.boot(ctx, metal3.InspectionError, bootRamdisk, digest, v1alpha1.RamdiskMode); !done {
		return out
	}
	if r, ended := s.result(v1alpha1.InspectStep); ended && !r.OK {
		if err := s.dropOrder(ctx); err != nil {
			return failed(metal3.InspectionError, err)
		}
		return failed(metal3.InspectionError, errors.New("the agent could not inspect the host: "+r.Message))
	}
	a := s.agent()
	if a.Inspected != s.epoch() || a.Facts == nil {
		return awaits("the agent's report", "Inspecting", s.Progress.Status.Boot.Deadline.Time, "", lookAgain)
	}
	return s.accept(ctx, a)
}

// ramdisk answers the UKI for the host's architecture.
func (s *step) ramdisk() (v1alpha1.File, error) {
	arch := "amd64"
	if s.Host.Spec.Architecture == "aarch64" {
		arch = "arm64"
	}
	f, err := s.Images.Ramdisk(arch)
	if err != nil {
		return f, fmt.Errorf("no ramdisk for %s: %w", arch, err)
	}
	return f, nil
}

// bootRamdisk switches an available host on, where its owner wants it on though nothing is deployed.
func (s *step) bootRamdisk(ctx context.Context) outcome {
	ramdisk, err := s.ramdisk()
	if err != nil {
		return stuck(metal3.PowerManagementError, "NoRamdisk", err, "metald image ramdisk --data-dir DIR")
	}
	_, out := s.boot(ctx, metal3.PowerManagementError, bootRamdisk, ramdisk.SHA256, v1alpha1.RamdiskMode)
	return out
}

// accept holds the agent's facts against what the BMC said, pins the TPM, and publishes Metal3's HardwareData.
func (s *step) accept(ctx context.Context, a v1alpha1.AgentFacts) outcome {
	id := s.identity()
	inBand := strings.ToLower(a.Facts.System.UUID)
	if id.SystemUUID != "" && inBand != "" && !bmc.SameUUID(id.SystemUUID, inBand) {
		return stuck(metal3.InspectionError, "IdentityContradiction",
			fmt.Errorf("the BMC names system UUID %s, the machine that booted names %s: BMC and boot MAC address belong to two machines",
				id.SystemUUID, inBand), "correct spec.bmc.address or spec.bootMACAddress")
	}
	err := s.changeInventory(ctx, func(i *v1alpha1.HostInventoryStatus) {
		if i.Identity.EKSHA256 == "" && a.Proof == "tpm" {
			i.Identity.EKSHA256 = a.EKSHA256
			s.log.Info("pinning the TPM's endorsement key", "host", s.key, "sha256", a.EKSHA256)
		}
		i.Identity.SystemUUID = first(inBand, i.Identity.SystemUUID) // the machine's own order of bytes, where its BMC has another
		i.Identity.SerialNumber = first(i.Identity.SerialNumber, a.Facts.System.SerialNumber)
	})
	if err != nil {
		return failed(metal3.InspectionError, fmt.Errorf("writing the host's identity: %w", err))
	}
	if err := s.publish(ctx, a.Facts); err != nil {
		return failed(metal3.InspectionError, fmt.Errorf("writing HardwareData: %w", err))
	}
	return moved(Inspected)
}

// publish writes what Metal3's users read: a HardwareData of the host's name, and the architecture.
func (s *step) publish(ctx context.Context, f *v1alpha1.HostFacts) error {
	details := hardwareDetails(f, s.bootMAC())
	hd, err := companion(ctx, s.Store.HardwareData(), s.Host.UID, s.Host.Namespace, s.Host.Name, func() *metal3.HardwareData {
		return &metal3.HardwareData{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.Host.Namespace, Name: s.Host.Name, OwnerReferences: []metav1.OwnerReference{ownerRef(s.Host)}},
			Spec:       metal3.HardwareDataSpec{HardwareDetails: details},
		}
	})
	if err != nil {
		return err
	}
	if _, err = s.Store.HardwareData().Update(ctx, hd.Namespace, hd.Name, func(hd *metal3.HardwareData) error {
		hd.Spec.HardwareDetails = details
		return nil
	}); err != nil {
		return err
	}
	h, err := s.Store.Hosts().Update(ctx, s.Host.Namespace, s.Host.Name, func(h *metal3.BareMetalHost) error {
		if h.Spec.Architecture == "" {
			h.Spec.Architecture = details.CPU.Arch
		}
		h.Status.HardwareDetails = details
		return nil
	})
	if err == nil {
		s.Host = h
	}
	return err
}

var metal3Arch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// hardwareDetails puts the agent's facts into Metal3's shape.
func hardwareDetails(f *v1alpha1.HostFacts, bootMAC string) *metal3.HardwareDetails {
	d := &metal3.HardwareDetails{
		Hostname:     f.Hostname,
		SystemVendor: metal3.HardwareSystemVendor{Manufacturer: f.System.Manufacturer, ProductName: f.System.Product, SerialNumber: f.System.SerialNumber},
		Firmware:     metal3.Firmware{BIOS: metal3.BIOS{Date: f.System.BIOSDate, Vendor: f.System.BIOSVendor, Version: f.System.BIOSVersion}},
		RAMMebibytes: int(f.Memory.TotalMiB),
		CPU: metal3.CPU{Arch: metal3Arch[f.CPU.Architecture], Model: f.CPU.Model, ClockMegahertz: metal3.ClockSpeed(f.CPU.MHz),
			Flags: f.CPU.Flags, Count: f.CPU.Threads},
	}
	for _, n := range f.NICs {
		nic := metal3.NIC{Name: n.Name, MAC: n.MAC, SpeedGbps: n.SpeedMbps / 1000, PXE: strings.EqualFold(n.MAC, bootMAC)}
		if n.VendorID != "" {
			nic.Model = "0x" + n.VendorID + " 0x" + n.DeviceID
		}
		if len(n.IPs) > 0 {
			nic.IP = n.IPs[0]
		}
		d.NIC = append(d.NIC, nic)
	}
	for _, k := range f.Disks {
		disk := metal3.Storage{Name: "/dev/" + k.Name, Rotational: k.Rotational, SizeBytes: metal3.Capacity(k.SizeBytes), Vendor: k.Vendor,
			Model: k.Model, SerialNumber: k.SerialNumber, WWN: k.WWN, HCTL: k.HCTL, Type: metal3.SSD,
			WWNVendorExtension: k.WWNVendorExtension, AlternateNames: k.Links}
		if k.WWNVendorExtension != "" {
			disk.WWNWithExtension = k.WWN + strings.TrimPrefix(k.WWNVendorExtension, "0x")
		}
		switch {
		case k.Transport == "nvme":
			disk.Type = metal3.NVME
		case k.Rotational:
			disk.Type = metal3.HDD
		}
		d.Storage = append(d.Storage, disk)
	}
	return d
}
