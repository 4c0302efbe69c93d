// SPDX-License-Identifier: Apache-2.0

//go:build long

package erase

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/ramdisk"
)

const marker = "the tenant's secret, "

// plug is a drive of a virtual machine: QEMU's words for it, with FILE for its file.
type plug struct {
	serial string
	mib    int
	odd    int // bytes more
	qemu   []string
	method string
	tried  string // one of the lines
	err    string
}

func backed(id, options string) string {
	return "if=none,id=" + id + ",format=raw,cache=writeback,file=FILE," + options
}

var plugs = []plug{
	{serial: "NVME-1", mib: 160, method: "nvme-format", tried: "nvme-sanitize-block: the controller does not have it", qemu: []string{
		"-device", "nvme,id=nv,serial=NVME", "-drive", backed("n1", "discard=unmap"), "-device", "nvme-ns,drive=n1,bus=nv,nsid=1"}},
	{serial: "NVME-2", mib: 32, method: "nvme-format", tried: "nvme-sanitize-crypto: the controller does not have it", qemu: []string{
		"-drive", backed("n2", "discard=unmap"), "-device", "nvme-ns,drive=n2,bus=nv,nsid=2"}},
	{serial: "SATA-TRIM", mib: 48, method: "discard", tried: "ata-secure-erase-enhanced, ata-secure-erase: the drive does not have it", qemu: []string{
		"-device", "ahci,id=ahci", "-drive", backed("s1", "discard=unmap"), "-device", "ide-hd,drive=s1,bus=ahci.0,serial=SATA-TRIM"}},
	{serial: "SATA-DISK", mib: 48, odd: 512, method: "overwrite", tried: "discard: it reported success, but byte 0 and on are not zero", qemu: []string{
		"-drive", backed("s2", "discard=ignore"), "-device", "ide-hd,drive=s2,bus=ahci.1,serial=SATA-DISK"}},
	{serial: "SCSI", mib: 48, method: "overwrite", tried: "scsi-sanitize: the drive does not have it", qemu: []string{
		"-device", "virtio-scsi-pci,id=scsi", "-drive", backed("c1", "discard=ignore"), "-device", "scsi-hd,drive=c1,bus=scsi.0,serial=SCSI,discard_granularity=0,logical_block_size=4096,physical_block_size=4096"}},
	{serial: "VIRTIO-TRIM", mib: 200, method: "discard", qemu: []string{
		"-drive", backed("v1", "discard=unmap"), "-device", "virtio-blk-pci,drive=v1,serial=VIRTIO-TRIM"}},
	{serial: "VIRTIO", mib: 33, method: "overwrite", tried: "discard: the drive does not have it", qemu: []string{
		"-drive", backed("v2", "discard=ignore"), "-device", "virtio-blk-pci,drive=v2,serial=VIRTIO,discard=off"}},
	{serial: "DYING", mib: 16, err: "input/output error", tried: "overwrite: writing at byte ", qemu: []string{
		"-blockdev", "driver=blkdebug,node-name=dying,inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno=5,inject-error.0.sector=16384,image.driver=raw,image.file.driver=file,image.file.filename=FILE",
		"-device", "virtio-blk-pci,drive=dying,serial=DYING,discard=off,werror=report"}},
}

// fill writes a pattern all over a drive, with a partition table that has one partition.
func (p plug) fill(t *testing.T, file string) {
	t.Helper()
	block := bytes.Repeat([]byte(fmt.Sprintf("%s%-11s", marker, p.serial)), 1<<20/32)
	data := append(bytes.Repeat(block, p.mib), block[:p.odd]...)
	table := make([]byte, 512)
	copy(table[446:], []byte{0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x10, 0, 0}) // from 1 MiB, 2 MiB long
	table[510], table[511] = 0x55, 0xaa
	copy(data, table)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// kernel is the ramdisk's, unpacked. Its package is the one that the lab keeps.
func kernel(t *testing.T) ramdisk.Kernel {
	t.Helper()
	const kept = "../../../build/lab/kernel"
	debs, err := filepath.Glob(kept + "/*.deb")
	if err != nil {
		t.Fatal(err)
	}
	if len(debs) == 0 {
		if err := os.MkdirAll(kept, 0o755); err != nil {
			t.Fatal(err)
		}
		deb, err := ramdisk.FetchKernel(t.Context(), "linux-image-amd64", kept)
		if err != nil {
			t.Fatal(err)
		}
		debs = []string{deb}
	}
	k, err := ramdisk.UnpackKernel(t.Context(), debs[0], t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Real drives are what QEMU has of them: NVMe with two namespaces, SATA, SCSI and virtio, with discard and without, and one
// that fails a write. They are filled from outside, erased from inside by what runs in the ramdisk, and looked at from
// outside.
func TestRealDrives(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-o", program, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the first program: %v\n%s", err, out)
	}
	agent, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	k := kernel(t)
	initrd, err := ramdisk.Initrd(t.Context(), ramdisk.Initramfs{Kernel: k, Modules: ramdisk.ServerModules, Agent: agent})
	if err != nil {
		t.Fatal(err)
	}
	initrdFile := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrdFile, initrd, 0o600); err != nil {
		t.Fatal(err)
	}
	boot := func(t *testing.T, mode string, plugs []plug) (records map[string]v1alpha1.DriveErasure, after []v1alpha1.DiskFacts, files map[string]string, stepErr string) {
		t.Helper()
		args := []string{"-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512", "-smp", "2", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
			"-kernel", k.Image, "-initrd", initrdFile,
			"-append", fmt.Sprintf("console=ttyS0 loglevel=4 panic=-1 rdinit=/init erase=%s drives=%d", mode, len(plugs))}
		files = map[string]string{}
		for _, p := range plugs {
			file := filepath.Join(t.TempDir(), p.serial)
			p.fill(t, file)
			files[p.serial] = file
			for _, arg := range p.qemu {
				args = append(args, strings.ReplaceAll(arg, "FILE", file))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, "qemu-system-x86_64", args...).CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatalf("running the machine: %v", errors.Join(err, ctx.Err()))
		}
		records = map[string]v1alpha1.DriveErasure{}
		for line := range strings.Lines(string(out)) {
			what, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch what {
			case "record":
				var r v1alpha1.DriveErasure
				if err := json.Unmarshal([]byte(value), &r); err != nil {
					t.Fatal(err)
				}
				serial := r.SerialNumber
				if serial == "NVME" { // its namespaces have one serial number
					serial += "-" + r.Name[len(r.Name)-1:]
				}
				records[serial] = r
			case "after":
				if err := json.Unmarshal([]byte(value), &after); err != nil {
					t.Fatal(err)
				}
			case "error":
				stepErr = value
			}
		}
		return records, after, files, stepErr
	}

	t.Run("full", func(t *testing.T) {
		records, after, files, stepErr := boot(t, v1alpha1.EraseFull, plugs)
		if len(after) != len(plugs) || !strings.Contains(stepErr, "1 of 8 are not erased: ") || !strings.Contains(stepErr, "DYING") {
			t.Errorf("the machine has %d drives, want %d; the step ended with %q", len(after), len(plugs), stepErr)
		}
		for _, p := range plugs {
			r, found := records[p.serial]
			if !found || r.Method != p.method || r.OK != (p.err == "") || !strings.Contains(r.Error, p.err) || !strings.Contains(strings.Join(r.Tried, "|"), p.tried) ||
				(r.OK && !strings.Contains(r.Verified, "all zero")) || r.Ended == nil {
				t.Errorf("%s: got the record %+v, want %s", p.serial, r, p.method)
			}
			data, err := os.ReadFile(files[p.serial])
			if err != nil {
				t.Fatal(err)
			}
			if left := bytes.Count(data, []byte(marker)); r.OK && left != 0 {
				t.Errorf("%s: the pattern is there %d times still", p.serial, left)
			} else if !r.OK && left == 0 {
				t.Errorf("%s: nothing is left, and the record says that it failed", p.serial)
			}
		}
		for _, d := range after {
			if d.Partitions != 0 && d.SerialNumber != "DYING" {
				t.Errorf("the kernel still sees %d partitions on %s", d.Partitions, d.Name)
			}
		}
	})

	t.Run("metadata", func(t *testing.T) {
		records, _, files, stepErr := boot(t, v1alpha1.EraseMetadata, plugs[5:7])
		if stepErr != "<nil>" {
			t.Errorf("the step ended with %s", stepErr)
		}
		for _, p := range plugs[5:7] {
			if r := records[p.serial]; !r.OK || r.Method != "metadata" || !strings.Contains(r.Verified, "all zero") {
				t.Errorf("%s: got the record %+v", p.serial, r)
			}
			data, err := os.ReadFile(files[p.serial])
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range metadataPlaces(int64(len(data)), []Extent{{1 << 20, 2 << 20}}) {
				if !bytes.Equal(data[e.Start:e.Start+e.Length], make([]byte, e.Length)) {
					t.Errorf("%s: byte %d and on are not zero", p.serial, e.Start)
				}
			}
			if !bytes.Contains(data[6<<20:20<<20], []byte(marker)) {
				t.Errorf("%s: the data are gone, too", p.serial)
			}
		}
	})
}
