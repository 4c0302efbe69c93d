// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var (
	ataPort  = regexp.MustCompile(`^ata[0-9]+$`)
	scsiHost = regexp.MustCompile(`^host([0-9]+)$`)
	nvmeName = regexp.MustCompile(`^nvme[0-9]+n([0-9]+)$`)
)

// byPath is the name that udev's path_id builtin (systemd 252) gives a disk on a PCI controller, so that a root device hint
// written on a running system means the same disk here, where no udev runs. Disks behind SAS expanders and fabrics have
// names of their own kinds there, and get none here.
func (r *reader) byPath(name, dir, path, pci string) string {
	if pci == "" {
		return ""
	}
	link := "/dev/disk/by-path/pci-" + pci
	switch transport(name, path) {
	case "virtio":
		return link
	case "nvme":
		if nsid := first(r.line(dir+"/nsid"), part(nvmeName, name)); nsid != "" {
			return link + "-nvme-" + nsid
		}
	case "sata":
		if port := r.ataPort(path); port != "" {
			return link + "-ata-" + port
		}
	case "scsi":
		return r.scsiPath(link, path)
	}
	return ""
}

func part(pattern *regexp.Regexp, text string) string {
	if m := pattern.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// ataPort is the port's number on its controller, counted from 1.
func (r *reader) ataPort(path string) string {
	at := "/"
	for element := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		at = filepath.Join(at, element)
		if ataPort.MatchString(element) {
			text, err := os.ReadFile(filepath.Join(at, "ata_port", element, "port_no"))
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(text))
		}
	}
	return ""
}

// scsiPath numbers hosts from the first of their controller, as path_id does: the kernel's own numbers change from boot to
// boot.
func (r *reader) scsiPath(link, path string) string {
	at := "/"
	for element := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		parent := at
		at = filepath.Join(at, element)
		number := part(scsiHost, element)
		if number == "" {
			continue
		}
		host, _ := strconv.Atoi(number)
		least := host
		siblings, _ := os.ReadDir(parent)
		for _, s := range siblings {
			if n, err := strconv.Atoi(part(scsiHost, s.Name())); err == nil {
				least = min(least, n)
			}
		}
		for address := range strings.SplitSeq(path, "/") {
			if scsiHCTL.MatchString(address) {
				_, rest, _ := strings.Cut(address, ":")
				return link + "-scsi-" + strconv.Itoa(host-least) + ":" + rest
			}
		}
	}
	return ""
}

// splitWWN takes a 128-bit NAA identifier (type 6) apart as udev does: the first half is the WWN, the second the vendor's
// extension. Everything else is left whole.
func splitWWN(wwid string) (wwn, extension string) {
	digits, naa := strings.CutPrefix(wwid, "naa.")
	if !naa {
		return wwid, ""
	}
	if len(digits) == 32 && digits[0] == '6' {
		return "0x" + digits[:16], "0x" + digits[16:]
	}
	return "0x" + digits, ""
}
