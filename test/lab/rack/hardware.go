// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// What all machines say of themselves.
const (
	manufacturer = "metald"
	product      = "lab machine"
)

// Firmware that Debian's ovmf package carries; the variables are copied for each machine.
const (
	firmwareCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	firmwareVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// arguments are QEMU's, for a machine that boots from once next.
func (m *Machine) arguments(once string) []string {
	s, nicIndex, pxe := m.spec, "", "n"
	if once == s.Network {
		nicIndex = ",bootindex=0"
	}
	if s.Network == bootPXE {
		pxe = "y" // before HTTP boot, which this firmware cannot be told to leave out
	}
	disk := "virtio-blk-pci"
	if s.Disk == nvmeDisk {
		disk = "nvme"
	}
	return []string{
		"-name", s.Name, "-nodefaults", "-display", "none", "-S",
		// Emulated, as KVM may not be there. A Go program would wait long for entropy without rdrand.
		"-machine", "q35,accel=tcg", "-cpu", "qemu64,+rdrand,+rdseed",
		"-smp", strconv.Itoa(s.CPUs), "-m", strconv.Itoa(s.Memory),
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + firmwareCode,
		"-drive", "if=pflash,format=raw,unit=1,file=" + escape(m.path("vars.fd")),
		"-uuid", s.UUID,
		"-smbios", "type=1,manufacturer=" + manufacturer + ",product=" + product + ",serial=" + s.Serial + ",uuid=" + s.UUID,
		"-netdev", "tap,id=net0,script=no,downscript=no,ifname=" + s.Tap,
		// romfile= takes QEMU's own iPXE away, so that the firmware's network stack is met.
		"-device", "virtio-net-pci,id=nic0,netdev=net0,romfile=,mac=" + s.MAC + nicIndex,
		"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=" + pxe,
		"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
		"-drive", "if=none,id=drive0,format=raw,discard=unmap,file=" + escape(m.rack.DiskFile(m.spec.Name)),
		"-device", disk + ",id=disk0,drive=drive0,serial=" + s.DiskSerial() + ",bootindex=1",
		"-chardev", "socket,id=tpmchar,path=" + m.socket("tpm"),
		"-tpmdev", "emulator,id=tpm0,chardev=tpmchar", "-device", "tpm-crb,tpmdev=tpm0",
		"-chardev", "socket,id=serial0,server=on,wait=off,path=" + m.socket("console") +
			",logappend=on,logfile=" + escape(m.rack.Log(s.Name+".console")),
		"-serial", "chardev:serial0",
		"-qmp", "unix:" + m.socket("qmp") + ",server=on,wait=off",
	}
}

// escape doubles commas, which end a value in QEMU's options.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// startTPM starts the machine's TPM, which keeps its keys in a directory and ends with its machine.
func (m *Machine) startTPM(ctx context.Context) error {
	if err := m.rack.Stop(m.tpmName(), time.Second); err != nil {
		return err
	}
	os.Remove(m.socket("tpm"))
	err := m.spawn(m.tpmName(), []string{"swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", "dir=" + m.path("tpm"),
		"--ctrl", "type=unixio,path=" + m.socket("tpm")})
	if err != nil {
		return err
	}
	return m.rack.await(ctx, "the TPM of "+m.spec.Name, 10*time.Second, func(context.Context) error {
		_, err := os.Stat(m.socket("tpm"))
		return err
	})
}

// SwapTPM puts another TPM into a machine that is off, and returns what puts the old one back.
func (r *Rack) SwapTPM(name string) (restore func() error, err error) {
	own, kept := r.Path("machines", name, "tpm"), r.Path("machines", name, "tpm.own")
	if _, on := r.Running(name + ".qemu"); on {
		return nil, fmt.Errorf("swapping the TPM of %s: it is on", name)
	}
	if err := os.Rename(own, kept); err != nil {
		return nil, fmt.Errorf("swapping the TPM of %s: %w", name, err)
	}
	if err := os.Mkdir(own, 0o755); err != nil {
		return nil, fmt.Errorf("swapping the TPM of %s: %w", name, err)
	}
	return func() error {
		if err := os.RemoveAll(own); err != nil {
			return fmt.Errorf("putting back the TPM of %s: %w", name, err)
		}
		return os.Rename(kept, own)
	}, nil
}
