// SPDX-License-Identifier: Apache-2.0

package metal3

import (
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/google/uuid"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type host = metal3.BareMetalHost

var (
	metaPath = field.NewPath("metadata")
	specPath = field.NewPath("spec")
	bmcPath  = specPath.Child("bmc", "address")
	macPath  = specPath.Child("bootMACAddress")

	hostName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// hostRules are Metal3's of a BareMetalHost.
var hostRules = []rule[host]{
	{"metadata.name", "is of letters, digits, dots, dashes and underscores, and is no UUID", upstream, checkName},
	{"spec.bmc.address", "is the URL of a known BMC type with an IP address or a host name", upstream, checkAddress},
	{"spec.bmc.address", "does not change, unless the host is new, registering or detached", upstream, keepAddress},
	{"spec.bootMACAddress", "is a MAC address", upstream, checkMAC},
	{"spec.bootMACAddress", "is given where the driver boots over the network, or nobody inspects the host", upstream, requireMAC},
	{"spec.bootMACAddress", "does not change once it is set", upstream, keepMAC},
	{"spec.bootMode", "is UEFISecureBoot only with a driver that can set it", upstream, checkSecureBoot},
	{"spec.firmware", "is not given: HostFirmwareSettings has taken its place", upstream, checkFirmware},
	{"spec.raid", "is of hardware or of software volumes, and of hardware ones only with a driver that makes them", upstream, checkRAID},
	{"spec.raid.hardwareRAIDVolumes", "names a controller with its disks, and as many disks as it counts", upstream, checkVolumes},
	{"spec.rootDeviceHints.deviceName", "is a path in /dev/ or /dev/disk/by-path/", upstream, checkHints},
	{"spec.image", "has a URL, and a checksum of a known type unless it is a live ISO or an OCI image",
		upstream, func(is, _ *host) field.ErrorList { return checkImage(is.Spec.Image, specPath.Child("image")) }},
	{"spec.{userData,networkData,metaData}", "are Secrets of the same namespace", upstream, func(is, _ *host) field.ErrorList {
		return checkSecrets(is.Namespace, map[string]*corev1.SecretReference{
			"userData": is.Spec.UserData, "networkData": is.Spec.NetworkData, "metaData": is.Spec.MetaData,
		})
	}},
	{"spec.externallyProvisioned", "is switched on at creation, or while the host is available", upstream, checkAdoption},
	{"spec.inspectionMode", "does not contradict the annotation inspect.metal3.io", upstream, checkInspection},
	{"spec.disablePowerOff", "is not true while online is false", upstream, checkPower},
	{"metadata.annotations", "that Metal3 gives a meaning can be read: status, reboot, inspect, hardware details", upstream, checkAnnotations},
}

func checkName(is, was *host) field.ErrorList {
	path := metaPath.Child("name")
	if was != nil {
		return nil
	}
	if !hostName.MatchString(is.Name) {
		return field.ErrorList{field.Invalid(path, is.Name, "cannot contain characters other than [A-Za-z0-9._-]")}
	}
	if _, err := uuid.Parse(is.Name); err == nil {
		return field.ErrorList{field.Invalid(path, is.Name, "cannot be a UUID")}
	}
	return nil
}

func checkAddress(is, _ *host) field.ErrorList {
	if is.Spec.BMC.Address == "" {
		return nil
	}
	if _, _, err := readAddress(is.Spec.BMC.Address); err != nil {
		return field.ErrorList{field.Invalid(bmcPath, field.OmitValueType{}, err.Error())}
	}
	return nil
}

// keepAddress lets a host that nobody has done anything with have another address, which Metal3 would not: a list of machines
// that is imported again may correct itself.
func keepAddress(is, was *host) field.ErrorList {
	if was == nil || is.Status.Provisioning.State == metal3.StateNone || was.Spec.BMC.Address == "" || is.Spec.BMC.Address == was.Spec.BMC.Address ||
		is.Status.OperationalStatus == metal3.OperationalStatusDetached || is.Status.Provisioning.State == metal3.StateRegistering {
		return nil
	}
	return field.ErrorList{field.Forbidden(bmcPath, "cannot be changed unless the host is registering or detached")}
}

// driverOf is the driver of a host whose address is right; ok is false without one.
func driverOf(h *host) (name string, d driver, ok bool) {
	if h.Spec.BMC.Address == "" {
		return "", driver{}, false
	}
	name, d, err := readAddress(h.Spec.BMC.Address)
	return name, d, err == nil
}

func checkMAC(is, _ *host) field.ErrorList {
	if is.Spec.BootMACAddress == "" {
		return nil
	}
	if _, err := net.ParseMAC(is.Spec.BootMACAddress); err != nil {
		return field.ErrorList{field.Invalid(macPath, is.Spec.BootMACAddress, "is not a MAC address, as 52:54:00:12:34:56")}
	}
	return nil
}

func requireMAC(is, _ *host) field.ErrorList {
	name, d, ok := driverOf(is)
	if !ok || is.Spec.BootMACAddress != "" || !d.needsMAC && !is.InspectionDisabled() {
		return nil
	}
	why := fmt.Sprintf("BMC driver %s requires it", name)
	if !d.needsMAC {
		why = "a host that is not inspected requires it"
	}
	return field.ErrorList{field.Required(macPath, why)}
}

func keepMAC(is, was *host) field.ErrorList {
	if was == nil || was.Spec.BootMACAddress == "" || strings.EqualFold(is.Spec.BootMACAddress, was.Spec.BootMACAddress) {
		return nil
	}
	return field.ErrorList{field.Forbidden(macPath, "cannot be changed once it is set")}
}

func checkSecureBoot(is, _ *host) field.ErrorList {
	if name, d, ok := driverOf(is); ok && is.Spec.BootMode == metal3.UEFISecureBoot && !d.secureBoot {
		return field.ErrorList{field.Invalid(specPath.Child("bootMode"), is.Spec.BootMode, "BMC driver "+name+" does not support secure boot")}
	}
	return nil
}

func checkFirmware(is, _ *host) field.ErrorList {
	//lint:ignore SA1019 that it is not to be used any more is what is checked
	if name, _, ok := driverOf(is); ok && is.Spec.Firmware != nil {
		return field.ErrorList{field.Forbidden(specPath.Child("firmware"), "BMC driver "+name+" does not support it: use HostFirmwareSettings")}
	}
	return nil
}

func checkRAID(is, _ *host) (errs field.ErrorList) {
	raid, path := is.Spec.RAID, specPath.Child("raid")
	if raid == nil || len(raid.HardwareRAIDVolumes) == 0 {
		return nil
	}
	if len(raid.SoftwareRAIDVolumes) > 0 {
		errs = append(errs, field.Forbidden(path.Child("softwareRAIDVolumes"), "cannot be set together with hardwareRAIDVolumes"))
	}
	if name, d, ok := driverOf(is); ok && !d.raid {
		errs = append(errs, field.Forbidden(path.Child("hardwareRAIDVolumes"), "BMC driver "+name+" does not support configuring RAID"))
	}
	return errs
}

func checkVolumes(is, _ *host) (errs field.ErrorList) {
	if is.Spec.RAID == nil {
		return nil
	}
	for n, v := range is.Spec.RAID.HardwareRAIDVolumes {
		path := specPath.Child("raid", "hardwareRAIDVolumes").Index(n)
		if len(v.PhysicalDisks) == 0 {
			continue
		}
		if v.Controller == "" {
			errs = append(errs, field.Required(path.Child("controller"), "physicalDisks belong to one"))
		}
		if v.NumberOfPhysicalDisks != nil && *v.NumberOfPhysicalDisks != len(v.PhysicalDisks) {
			errs = append(errs, field.Invalid(path.Child("numberOfPhysicalDisks"), *v.NumberOfPhysicalDisks,
				fmt.Sprintf("differs from the %d physicalDisks that are named", len(v.PhysicalDisks))))
		}
	}
	return errs
}

func checkHints(is, _ *host) field.ErrorList {
	if is.Spec.RootDeviceHints == nil || is.Spec.RootDeviceHints.DeviceName == "" {
		return nil
	}
	name := is.Spec.RootDeviceHints.DeviceName
	below, ok := strings.CutPrefix(name, "/dev/")
	if !ok || strings.Contains(strings.TrimPrefix(below, "disk/by-path/"), "/") {
		return field.ErrorList{field.Invalid(specPath.Child("rootDeviceHints", "deviceName"), name, "must be a path in /dev/ or /dev/disk/by-path/")}
	}
	return nil
}

func checkAdoption(is, was *host) field.ErrorList {
	if was == nil || was.Spec.ExternallyProvisioned || !is.Spec.ExternallyProvisioned || is.Status.Provisioning.State == metal3.StateAvailable {
		return nil
	}
	return field.ErrorList{field.Forbidden(specPath.Child("externallyProvisioned"),
		fmt.Sprintf("can only be switched on while the host is available, and it is %q", is.Status.Provisioning.State))}
}

func checkPower(is, _ *host) field.ErrorList {
	if is.Spec.DisablePowerOff && !is.Spec.Online {
		return field.ErrorList{field.Forbidden(specPath.Child("disablePowerOff"), "cannot be true while online is false")}
	}
	return nil
}
