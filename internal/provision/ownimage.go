// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/imaging/configdrive"
)

// ownImage works out what a user's own spec.image means: it is written as it is, and joins no cluster of ours.
func (s *step) ownImage() (*v1alpha1.Deployment, outcome) {
	image := s.Host.Spec.Image
	format := ""
	if image.DiskFormat != nil {
		format = *image.DiskFormat
	}
	if format != "raw" {
		return nil, stuck(metal3.ProvisioningError, "FormatNotServed",
			fmt.Errorf("spec.image.format is %q; metald writes images of format raw, as they are or packed as .zst or .gz", format),
			"convert it (qemu-img convert -O raw) and set spec.image.format to raw")
	}
	kind, sum := string(image.ChecksumType), image.Checksum
	if sum == "" {
		return nil, stuck(metal3.ProvisioningError, "ChecksumMissing", errors.New("spec.image.checksum is empty: what cannot be verified is not written"),
			"set spec.image.checksum and checksumType")
	}
	if out := s.holdForDisks(false); out.waiting != nil {
		return nil, out
	}
	disk, err := chooseDisk(s.disks(), s.Host.Spec.RootDeviceHints, 0)
	if err != nil {
		return nil, stuck(metal3.ProvisioningError, "NoDiskFits", err, "correct spec.rootDeviceHints, or use another host")
	}
	return &v1alpha1.Deployment{Cleaning: first(string(s.Host.Spec.AutomatedCleaningMode), string(metal3.CleaningModeMetadata)),
		Install: &v1alpha1.Installation{ID: newID(), Disk: disk, Raw: &v1alpha1.RawImage{URL: image.URL, Checksum: sum, ChecksumType: kind}}}, outcome{}
}

// configDrive is what a user's own image learns at its first boot; empty where no Secret is named.
func (s *step) configDrive(ctx context.Context) ([]byte, error) {
	spec := s.Host.Spec
	if spec.UserData == nil && spec.NetworkData == nil && spec.MetaData == nil {
		return nil, nil
	}
	read := func(ref *corev1.SecretReference, keys ...string) ([]byte, error) {
		if ref == nil {
			return nil, nil
		}
		if ref.Namespace != "" && ref.Namespace != s.Host.Namespace {
			return nil, fmt.Errorf("secret %s/%s lies in another namespace than the host", ref.Namespace, ref.Name)
		}
		secret, err := s.Store.Secrets().Get(ctx, s.Host.Namespace, ref.Name)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("secret %s/%s does not exist", s.Host.Namespace, ref.Name)
		}
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if v, ok := secret.Data[k]; ok {
				return v, nil
			}
		}
		return nil, fmt.Errorf("secret %s/%s has no key %s", s.Host.Namespace, ref.Name, keys[0])
	}
	user, err := read(spec.UserData, "userData", "value")
	if err != nil {
		return nil, fmt.Errorf("reading userData: %w", err)
	}
	network, err := read(spec.NetworkData, "networkData", "value")
	if err != nil {
		return nil, fmt.Errorf("reading networkData: %w", err)
	}
	meta, err := read(spec.MetaData, "metaData", "value")
	if err != nil {
		return nil, fmt.Errorf("reading metaData: %w", err)
	}
	drive, err := configdrive.Build(configdrive.Host{UUID: string(s.Host.UID), Namespace: s.Host.Namespace, Name: s.Host.Name},
		configdrive.Data{Meta: meta, User: user, Network: network})
	if err != nil {
		return nil, fmt.Errorf("making the config drive: %w", err)
	}
	return drive, nil
}

// bootBlind brings a machine up that has no agent of ours: it is believed to run when its BMC reads On after we ordered it
// to start from its disk.
func (s *step) bootBlind(ctx context.Context, kind metal3.ErrorType) (done bool, out outcome) {
	ctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	c, err := s.controller(ctx)
	if err != nil {
		return false, s.bmcTrouble(ctx, kind, err)
	}
	order := s.Progress.Status.Boot
	stands := order != nil && order.Answer == bootDisk && order.Epoch == s.epoch()
	p, err := s.powered(ctx, c, lookAgain)
	if err == nil && (p != bmc.On || !stands) {
		p, err = s.powered(ctx, c, 0)
	}
	switch {
	case err != nil:
		return false, s.bmcTrouble(ctx, kind, err)
	case stands && p == bmc.On:
		if err := s.endBoot(ctx, bootDisk); err != nil {
			return false, failed(kind, err)
		}
		return true, content()
	case !stands && p == bmc.On:
		return false, s.switchOff(ctx, c, "to boot from its disk")
	}
	if err := s.order(ctx, bootDisk, ""); err != nil {
		return false, failed(kind, fmt.Errorf("writing the boot order: %w", err))
	}
	if out := s.start(ctx, kind, c, bootDisk); out.err != nil {
		return false, out
	}
	return false, awaits("the machine to switch on", "Booting", s.Progress.Status.Boot.Deadline.Time, "", 2*time.Second)
}
