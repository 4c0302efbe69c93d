// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/agent/erase"
	"metald.io/metald/internal/agent/facts"
	"metald.io/metald/internal/agent/tpm"
	"metald.io/metald/internal/imaging/disk"
)

// host is this machine as the agent sees it.
type host struct {
	// bootMAC is the device that the machine booted from.
	bootMAC string
	// bootURL is where boot files are fetched from.
	bootURL string
	// users fetches a user's own image. The ramdisk knows no authority but the site's, so a server of images with TLS shows a
	// certificate of that one.
	users    *http.Client
	rootHash string
	join     func(context.Context, v1alpha1.JoinSeed) error
	powerOff func() error
	// drivers is closed when the machine's devices have theirs; nil where they had before.
	drivers <-chan struct{}
}

// settled waits for the drivers.
func (h host) settled() {
	if h.drivers != nil {
		<-h.drivers
	}
}

func (h host) Hello() v1alpha1.Hello {
	h.settled()
	hello := facts.Hello("/", h.bootMAC)
	hello.RootHash = h.rootHash
	return hello
}

// TPM opens the TPM, nil without one. A driver that was just loaded may take a moment to make its device.
func (h host) TPM() (agent.TPM, error) {
	h.settled()
	for tries := 0; ; tries++ {
		t, err := tpm.Open()
		if err != nil {
			return nil, err
		}
		if t != nil {
			return t, nil
		}
		if _, err := os.Stat("/sys/class/tpm/tpm0"); err != nil || tries == 20 {
			return nil, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (h host) Facts(context.Context) *v1alpha1.HostFacts {
	h.settled()
	return inspect(h.bootMAC)
}

func (h host) Join(ctx context.Context, seed v1alpha1.JoinSeed) error {
	if h.join == nil {
		return errors.New("a machine joins from its OS image, not from the ramdisk")
	}
	return h.join(ctx, seed)
}

// Install finds the plan's disk among those that are there now, and writes it.
func (h host) Install(ctx context.Context, plan v1alpha1.InstallPlan, progress func(v1alpha1.StepProgress)) (bool, error) {
	h.settled()
	seen := facts.Read("/", h.bootMAC).Disks
	var wrong error
	at := slices.IndexFunc(seen, func(d v1alpha1.DiskFacts) bool {
		err := disk.Match(plan.Disk, d)
		if err != nil && (wrong == nil || d.Name == plan.Disk.Name) {
			wrong = err // of the disk that has the plan's name, where there is one: that tells the most
		}
		return err == nil
	})
	if at < 0 {
		return false, fmt.Errorf("finding the disk %s among %d: %w", plan.Disk.Name, len(seen), cmp.Or(wrong, errNoDisks))
	}
	console.Say("writing to %s: %s %s, %d GiB", seen[at].Name, seen[at].Model, seen[at].SerialNumber, seen[at].SizeBytes>>30)
	result, err := disk.Install(ctx, disk.Options{
		Seen: seen[at], Plan: plan, Progress: progress, Log: slog.New(slog.NewTextHandler(consoleLines{}, nil)),
		Source: &disk.HTTP{Client: plain(), Users: h.users, Base: h.bootURL, Patience: fetchPatience},
	})
	return result.AlreadyThere, err
}

var errNoDisks = errors.New("this machine has none")

// fetchPatience is how long the boot server may send no byte of an image. A daemon that is restarted takes seconds.
const fetchPatience = 5 * time.Minute

// consoleLines says lines of a log at the console.
type consoleLines struct{}

func (consoleLines) Write(line []byte) (int, error) {
	console.Say("%s", strings.TrimSpace(string(line)))
	return len(line), nil
}

// Erase erases the plan's drives, and says at the console how each ended.
func (h host) Erase(ctx context.Context, plan v1alpha1.ErasePlan, progress func(v1alpha1.StepProgress)) ([]v1alpha1.DriveErasure, error) {
	h.settled()
	console.Say("erasing %d drives, mode %s", len(plan.Drives), plan.Mode)
	records, err := erase.Run(ctx, erase.Options{
		Plan: plan, Seen: facts.Read("/", h.bootMAC).Disks, Open: erase.Open, Progress: progress,
	})
	for _, r := range records {
		if r.OK {
			console.Say("%s is erased by %s: %s", r.Name, r.Method, r.Verified)
		} else {
			console.Say("%s is not erased: %s", r.Name, r.Error)
		}
	}
	return records, err
}

func (h host) PowerOff() error { return h.powerOff() }

// inspect reads all facts of this machine, the TPM's with them.
func inspect(bootMAC string) *v1alpha1.HostFacts {
	seen := facts.Read("/", bootMAC)
	t, err := tpm.Open()
	if err == nil && t != nil {
		seen.TPM, err = t.Facts()
		err = errors.Join(err, t.Close())
	}
	if err != nil {
		seen.Problems = append(seen.Problems, "reading the TPM: "+err.Error())
	}
	return seen
}
