// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"metald.io/metald/api/v1alpha1"
)

// sectorBytes is the unit of sysfs' size, whatever the disk's own sectors are.
const sectorBytes = 512

// notDisks are block devices that no disk is behind.
var notDisks = regexp.MustCompile(`^(loop|ram|zram|dm-|md|nbd|sr|fd|zd|drbd)`)

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	scsiHCTL   = regexp.MustCompile(`^[0-9]+:[0-9]+:[0-9]+:[0-9]+$`)
)

// disks lists the disks of /sys/block. The namespaces of a multipath NVMe appear twice, once for each controller; those
// are hidden by the kernel, and left out here.
func (r *reader) disks() ([]v1alpha1.DiskFacts, error) {
	names, err := r.list("sys/block")
	var all []v1alpha1.DiskFacts
	for _, name := range names {
		dir := "sys/block/" + name
		if notDisks.MatchString(name) || r.line(dir+"/hidden") == "1" || r.number(dir+"/size") == 0 {
			continue
		}
		all = append(all, r.disk(name, dir))
	}
	return all, err
}

func (r *reader) disk(name, dir string) v1alpha1.DiskFacts {
	disk := v1alpha1.DiskFacts{
		Name:         name,
		SizeBytes:    r.number(dir+"/size") * sectorBytes,
		Rotational:   r.line(dir+"/queue/rotational") == "1",
		Model:        r.line(dir + "/device/model"),
		Vendor:       r.line(dir + "/device/vendor"),
		SerialNumber: first(r.line(dir+"/device/serial"), r.line(dir+"/serial"), r.vpdSerial(dir+"/device/vpd_pg80")),
	}
	disk.WWN, disk.WWNVendorExtension = splitWWN(first(r.line(dir+"/wwid"), r.line(dir+"/device/wwid")))
	if strings.HasPrefix(disk.Vendor, "0x") {
		disk.Vendor = "" // virtio puts a PCI id here
	}
	path, err := filepath.EvalSymlinks(r.path(dir))
	if err != nil {
		path = r.path(dir)
	}
	for element := range strings.SplitSeq(path, string(filepath.Separator)) {
		if pciAddress.MatchString(element) {
			disk.PCIAddress = element // the last one is the disk's controller, those before are bridges
		}
		if scsiHCTL.MatchString(element) {
			disk.HCTL = element
		}
	}
	disk.Transport = transport(name, path)
	if link := r.byPath(name, dir, path, disk.PCIAddress); link != "" {
		disk.Links = []string{link}
	}
	entries, err := os.ReadDir(r.path(dir))
	if err != nil {
		r.problem("reading the partitions of %s: %v", name, err)
	}
	for _, entry := range entries {
		if r.exists(dir + "/" + entry.Name() + "/partition") {
			disk.Partitions++
		}
	}
	return disk
}

// transport is how the disk is attached, told by the devices on its way in sysfs.
func transport(name, path string) string {
	switch {
	case strings.HasPrefix(name, "nvme"):
		if strings.Contains(path, "/nvme-fabrics/") {
			return "nvmeof"
		}
		return "nvme"
	case strings.HasPrefix(name, "vd"):
		return "virtio"
	case strings.HasPrefix(name, "mmcblk"):
		return "mmc"
	case strings.HasPrefix(name, "pmem"):
		return "pmem"
	}
	for _, way := range []struct{ element, transport string }{
		{"/usb", "usb"}, {"/virtio", "virtio"}, {"/ata", "sata"}, {"/end_device-", "sas"}, {"/session", "iscsi"}, {"/rport-", "fc"},
	} {
		if strings.Contains(path, way.element) {
			return way.transport
		}
	}
	return "scsi"
}

// vpdSerial reads a SCSI disk's serial number from its vital product data, page 0x80 (SPC-5, 7.7.17).
func (r *reader) vpdSerial(name string) string {
	page, err := os.ReadFile(r.path(name))
	if err != nil || len(page) < 4 || page[1] != 0x80 {
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(strings.Trim(string(page[4:min(len(page), 4+int(page[3]))]), "\x00"), ""))
}

// first is the first text that is not empty.
func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
