// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"fmt"
	"time"

	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"
)

// devices are IPMI's words for what can be set (IPMI 2.0, table 28-14, parameter 5). It has none for HTTP.
var devices = map[BootTarget]types.BootDeviceSelector{
	BootNone: types.BootDeviceSelectorNoOverride,
	BootPXE:  types.BootDeviceSelectorForcePXE,
	BootDisk: types.BootDeviceSelectorForceHardDrive,
}

// NetworkBoot is BootPXE: IPMI knows no other.
func (i *ipmi) NetworkBoot(context.Context) (BootTarget, error) { return BootPXE, nil }

// OneTimeBoot reads the boot flags.
func (i *ipmi) OneTimeBoot(ctx context.Context) (BootTarget, error) {
	target := BootNone
	err := i.with(ctx, func() error {
		f, err := i.bootFlags(ctx)
		target = f.target(i.mute)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading one-time boot: %w", err)
	}
	return target, nil
}

// SetOneTimeBoot writes the boot flags, for an EFI boot and for one, and reads them back. A BMC drops them by itself when no
// power command follows within a minute (IPMI 2.0, parameter 3): set them just before.
func (i *ipmi) SetOneTimeBoot(ctx context.Context, target BootTarget) error {
	device, ok := devices[target]
	if !ok {
		return fmt.Errorf("setting one-time boot: IPMI has no target %q: %w", target, ErrNotSupported)
	}
	if err := i.with(ctx, func() error { return i.setBoot(ctx, target, device) }); err != nil {
		return fmt.Errorf("setting one-time boot to %s: %w", target, err)
	}
	return nil
}

func (i *ipmi) setBoot(ctx context.Context, target BootTarget, device types.BootDeviceSelector) error {
	// The BIOS, by its number, has not handled the flags that come now. Some BMCs know no such parameter, and need none.
	acknowledge := []byte{byte(types.BootInfoAcknowledgeByBIOSPOST), byte(types.BootInfoAcknowledgeByBIOSPOST)}
	if err := i.setBootOption(ctx, types.BootOptionParamSelector_BootInfoAcknowledge, acknowledge); err != nil && completed(err) == 0 {
		return err
	}
	flags := types.BootOptionParam_BootFlags{BootFlagsValid: true, BIOSBootType: types.BIOSBootTypeEFI, BootDeviceSelector: device}
	if target == BootNone {
		flags = types.BootOptionParam_BootFlags{}
	}
	if err := i.setBootOption(ctx, types.BootOptionParamSelector_BootFlags, flags.Pack()); err != nil {
		return err
	}
	const reads, pause = 4, 500 * time.Millisecond
	var shown BootTarget
	for n := range reads {
		if n > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return network(ctx, ctx.Err())
			}
		}
		f, err := i.bootFlags(ctx)
		if err != nil {
			return fmt.Errorf("reading it back: %w", err)
		}
		if shown = f.target(true); shown == target {
			i.mute = i.mute || target != BootNone && !f.valid
			return nil
		}
	}
	return fmt.Errorf("%w: it shows %s", ErrNotKept, shown)
}

func (i *ipmi) setBootOption(ctx context.Context, param types.BootOptionParamSelector, data []byte) error {
	return i.do(ctx, &chassis.SetSystemBootOptionsParamRequest{ParamSelector: param, ParamData: data}, nil)
}

// bootFlags is what of parameter 5 matters here.
type bootFlags struct {
	valid   bool
	persist bool
	device  types.BootDeviceSelector
	// bare is an answer in which nothing but the device is set. ipmi_sim shows no more of what it keeps; whether such flags
	// are valid can be told only from what was written in the same session.
	bare bool
}

func (i *ipmi) bootFlags(ctx context.Context) (bootFlags, error) {
	var res chassis.GetSystemBootOptionsParamResponse
	err := i.do(ctx, &chassis.GetSystemBootOptionsParamRequest{ParamSelector: types.BootOptionParamSelector_BootFlags}, &res)
	if err != nil {
		return bootFlags{}, err
	}
	d := res.ParamData
	if len(d) < 5 || res.ParamSelector != types.BootOptionParamSelector_BootFlags {
		return bootFlags{}, fmt.Errorf("the BMC's boot flags are %d bytes of parameter %d: %w", len(d), res.ParamSelector, ErrNotSupported)
	}
	return bootFlags{
		valid:   d[0]&0x80 != 0 && !res.ParameterInValid,
		persist: d[0]&0x40 != 0,
		device:  types.BootDeviceSelector(d[1] >> 2 & 0x0f),
		bare:    d[0]|d[1]&0xc3|d[2]|d[3]|d[4] == 0,
	}, nil
}

// target is what the flags do to the next boot. mute says that a bare answer is as good as a valid one.
func (f bootFlags) target(mute bool) BootTarget {
	switch {
	case f.device == types.BootDeviceSelectorNoOverride, !f.valid && !(mute && f.bare):
		return BootNone
	case f.persist:
		return BootOther
	}
	for target, device := range devices {
		if device == f.device {
			return target
		}
	}
	return BootOther
}
