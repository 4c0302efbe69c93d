// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
)

// packages are all that the lab, the tests and an image build need of Debian 12 beyond its base and Go, with what each is
// for. This is the one list.
var packages = map[string]string{
	"qemu-system-x86":  "the machine",
	"ovmf":             "its UEFI firmware",
	"swtpm":            "its TPM",
	"ipxe":             "what UEFI PXE clients boot first, by TFTP",
	"openipmi":         "ipmi_sim, an IPMI BMC that is not ours",
	"ipmitool":         "asking it past metald",
	"mtools":           "looking into an installed disk's EFI system partition",
	"dosfstools":       "a second opinion on the file systems that we write",
	"gdisk":            "a second opinion on the partition tables that we write",
	"genisoimage":      "a second opinion on config drives",
	"iproute2":         "network namespace, bridge, taps",
	"mmdebstrap":       "the OS image's root",
	"erofs-utils":      "the OS image's file system",
	"cryptsetup-bin":   "veritysetup, the second opinion on our hash trees",
	"systemd-boot-efi": "the stub that a unified kernel image starts with",
	"dpkg-dev":         "the index of an image's packages",
	"xz-utils":         "unpacking kernel packages",
	"zstd":             "unpacking and packing initramfs",
	"ca-certificates":  "fetching Go modules",
	"gcc":              "Go's race detector",
	"libc6-dev":        "Go's race detector",
	"make":             "the Makefile",
	"git":              "Go's version stamps",
}

// policyFile is what Debian's packages ask before they start a service.
const policyFile = "/usr/sbin/policy-rc.d"

// Install installs the missing packages with apt-get. Nothing is started: while it runs, policy-rc.d forbids it.
func (r *Rack) Install(ctx context.Context) error {
	missing, err := missingPackages(ctx)
	if err != nil || len(missing) == 0 {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("installing packages needs root; missing: %s", strings.Join(missing, " "))
	}
	restore, err := forbidServices(policyFile)
	if err != nil {
		return err
	}
	defer restore()
	r.say("    installing %s", strings.Join(missing, " "))
	apt := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		return r.progress(cmd, "lines of apt")
	}
	if err := apt(append([]string{"install"}, missing...)...); err != nil {
		// The lists may be missing or old, as on a fresh machine.
		if err := apt("update"); err != nil {
			return err
		}
		if err := apt(append([]string{"install"}, missing...)...); err != nil {
			return err
		}
	}
	return keepAsleep(ctx, missing)
}

// services come with packages of ours and would start at the machine's next boot; the lab runs what it needs by itself.
var services = map[string]string{"openipmi": "openipmi", "ipmitool": "ipmievd"}

// keepAsleep has the services of newly installed packages not start at the next boot. A service that was there before is a
// person's.
func keepAsleep(ctx context.Context, packages []string) error {
	for _, name := range packages {
		if service := services[name]; service != "" {
			if _, err := output(exec.CommandContext(ctx, "update-rc.d", service, "disable")); err != nil {
				return err
			}
		}
	}
	return nil
}

func missingPackages(ctx context.Context) ([]string, error) {
	var names, missing []string
	for name := range packages {
		names = append(names, name)
	}
	sort.Strings(names)
	// dpkg-query exits 1 where it does not know one of the names; what it knows it prints all the same.
	text, err := exec.CommandContext(ctx, "dpkg-query", append([]string{"-W", "-f", "${Package} ${db:Status-Status}\n"}, names...)...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("asking dpkg what is installed (the lab needs Debian): %w", err)
	}
	for _, name := range names {
		if !strings.Contains("\n"+string(text), "\n"+name+" installed\n") {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// forbidServices puts a policy-rc.d in place that refuses every start, and returns what puts the old state back.
func forbidServices(policyFile string) (restore func(), err error) {
	const text = "#!/bin/sh\n# put here by metald's lab while it installs packages; remove it if the lab is not running\nexit 101\n"
	before, err := os.ReadFile(policyFile)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && string(before) == text:
		restore = func() { os.Remove(policyFile) }
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", policyFile, err)
	default:
		restore = func() { os.WriteFile(policyFile, before, 0o755) }
	}
	if err := os.WriteFile(policyFile, []byte(text), 0o755); err != nil {
		return nil, fmt.Errorf("forbidding that packages start services: %w", err)
	}
	return restore, nil
}
