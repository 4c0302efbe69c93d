// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/agent/facts"
	"metald.io/metald/internal/agent/tpm"
)

// host is this machine as the agent sees it.
type host struct {
	// bootMAC is the device that the machine booted from.
	bootMAC  string
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
