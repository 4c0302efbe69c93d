// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"metald.io/metald/api/v1alpha1"
)

// probe prints the facts of this machine. It asks no daemon.
func probe(out io.Writer, arguments []string) error {
	flags := flag.NewFlagSet("metald-agent probe", flag.ContinueOnError)
	format := flags.String("o", "table", "how to print: table or json")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("probe takes no argument %q", flags.Arg(0))
	}
	switch *format {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(inspect(""))
	case "table":
		return table(out, inspect(""))
	default:
		return fmt.Errorf("there is no format %q: table or json", *format)
	}
}

// table prints facts for a person.
func table(out io.Writer, f *v1alpha1.HostFacts) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "System\t%s\n", strings.TrimSpace(f.System.Manufacturer+" "+f.System.Product))
	fmt.Fprintf(w, "Serial number\t%s\n", f.System.SerialNumber)
	fmt.Fprintf(w, "UUID\t%s\n", f.System.UUID)
	fmt.Fprintf(w, "Firmware\t%s, secure boot %t, %s %s %s\n", f.Firmware.Mode, f.Firmware.SecureBoot, f.System.BIOSVendor,
		f.System.BIOSVersion, f.System.BIOSDate)
	fmt.Fprintf(w, "Kernel\t%s\n", f.Kernel)
	fmt.Fprintf(w, "CPU\t%s, %d sockets, %d cores, %d threads, %d NUMA nodes\n", f.CPU.Model, f.CPU.Sockets, f.CPU.Cores,
		f.CPU.Threads, f.CPU.NUMANodes)
	fmt.Fprintf(w, "Memory\t%d MiB in %d modules\n", f.Memory.TotalMiB, len(f.Memory.DIMMs))
	if f.TPM != nil {
		fmt.Fprintf(w, "TPM\t%s, %s, firmware %s\n", f.TPM.Version, f.TPM.Manufacturer, f.TPM.Firmware)
	} else {
		fmt.Fprintf(w, "TPM\tnone\n")
	}
	for _, d := range f.Disks {
		fmt.Fprintf(w, "Disk %s\t%.1f GB %s %s %s, %d partitions\n", d.Name, float64(d.SizeBytes)/1e9, d.Transport, d.Model,
			d.SerialNumber, d.Partitions)
	}
	for _, n := range f.NICs {
		fmt.Fprintf(w, "NIC %s\t%s %s %s, link %t, %d Mb/s %s\n", n.Name, n.MAC, n.Driver, n.PCIAddress, n.Link, n.SpeedMbps,
			strings.Join(n.IPs, " "))
	}
	for _, p := range f.PCI {
		if p.Kind != "bridge" && p.Kind != "other" {
			fmt.Fprintf(w, "PCI %s\t%s %s:%s, NUMA node %d, %s x%s of %s x%s, driver %s\n", p.Address, p.Kind, p.VendorID,
				p.DeviceID, p.NUMANode, p.LinkSpeed, p.LinkWidth, p.MaxLinkSpeed, p.MaxLinkWidth, p.Driver)
		}
	}
	for _, problem := range f.Problems {
		fmt.Fprintf(w, "Problem\t%s\n", problem)
	}
	return w.Flush()
}
