// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"

	"metald.io/metald/api/v1alpha1"
)

// Hello is who the machine at root claims to be: the addresses of its network devices, its system UUID, its serial number
// and the kernel's id of this boot.
func Hello(root, bootMAC string) v1alpha1.Hello {
	r := &reader{root: root}
	var seen v1alpha1.HostFacts
	r.try("SMBIOS", func() error { return r.smbios(&seen) })
	hello := v1alpha1.Hello{
		BootID:       r.line("proc/sys/kernel/random/boot_id"),
		SystemUUID:   seen.System.UUID,
		SerialNumber: seen.System.SerialNumber,
		BootMAC:      bootMAC,
	}
	nics, _ := r.nics(bootMAC) // the devices that could be read are what there is to say
	for _, nic := range nics {
		if nic.MAC != "" && !slices.Contains(hello.MACs, nic.MAC) {
			hello.MACs = append(hello.MACs, nic.MAC)
		}
	}
	if bootMAC != "" && !slices.Contains(hello.MACs, bootMAC) {
		hello.MACs = append([]string{bootMAC}, hello.MACs...)
	}
	// The door takes no more; a machine with more ports than this is known by the first.
	hello.MACs = hello.MACs[:min(len(hello.MACs), 64)]
	return hello
}
