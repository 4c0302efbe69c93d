// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// override is ComputerSystem.Boot, as far as a one-time boot needs it.
type override struct {
	Enabled string   `json:"BootSourceOverrideEnabled"`
	Target  string   `json:"BootSourceOverrideTarget"`
	Allowed []string `json:"BootSourceOverrideTarget@Redfish.AllowableValues"`
}

// targets are Redfish's words for what can be set.
var targets = map[BootTarget]string{BootNone: "None", BootHTTP: "UefiHttp", BootPXE: "Pxe", BootDisk: "Hdd"}

// target is what the override does to the next boot.
func (o override) target() BootTarget {
	if o.Enabled == "" || o.Enabled == "Disabled" || o.Target == "" || o.Target == "None" {
		return BootNone
	}
	if o.Enabled == "Once" {
		for t, word := range targets {
			if word == o.Target {
				return t
			}
		}
	}
	return BootOther // another target, or one that stays
}

// OneTimeBoot reads the override.
func (r *redfish) OneTimeBoot(ctx context.Context) (BootTarget, error) {
	target := BootNone
	err := r.with(ctx, func(c *call) error {
		s, err := r.computer(c)
		if err == nil {
			target = s.boot.target()
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading one-time boot: %w", err)
	}
	return target, nil
}

// NetworkBoot is BootHTTP where the address asks for it (redfish-uefihttp) or the BMC lists it, and BootPXE where it lists only
// that. A BMC that lists nothing is believed to know HTTP until it refuses to take it; from then on this connection says PXE.
func (r *redfish) NetworkBoot(ctx context.Context) (BootTarget, error) {
	if r.target.Address.Driver == "redfish-uefihttp" {
		return BootHTTP, nil
	}
	var offered []string
	err := r.with(ctx, func(c *call) error {
		s, err := r.computer(c)
		if err == nil {
			offered = s.boot.Allowed
		}
		return err
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("reading how the machine boots from the network: %w", err)
	case len(offered) == 0 && r.noHTTP.Load():
		return BootPXE, nil
	case len(offered) == 0 || slices.Contains(offered, targets[BootHTTP]):
		return BootHTTP, nil
	case slices.Contains(offered, targets[BootPXE]):
		return BootPXE, nil
	}
	return "", fmt.Errorf("reading how the machine boots from the network: the BMC offers only %s: %w", printable(fmt.Sprint(offered)), ErrNotSupported)
}

// SetOneTimeBoot writes the override and reads it back.
func (r *redfish) SetOneTimeBoot(ctx context.Context, target BootTarget) error {
	if _, ok := targets[target]; !ok {
		return fmt.Errorf("setting one-time boot: unknown target %q: %w", target, ErrNotSupported)
	}
	err := r.with(ctx, func(c *call) error { return r.setBoot(c, target) })
	if err != nil {
		return fmt.Errorf("setting one-time boot to %s: %w", target, err)
	}
	return nil
}

func (r *redfish) setBoot(c *call, target BootTarget) error {
	s, err := r.computer(c)
	if err != nil {
		return err
	}
	if a := s.boot.Allowed; target != BootNone && len(a) > 0 && !slices.Contains(a, targets[target]) {
		return fmt.Errorf("the BMC offers only %s: %w", printable(fmt.Sprint(a)), ErrNotSupported)
	}
	if err := r.patchBoot(c, s, target); err != nil {
		if target == BootHTTP && (status(err) == http.StatusBadRequest || errors.Is(err, ErrNotSupported)) {
			r.noHTTP.Store(true)
		}
		return err
	}
	return r.keptBoot(c, target)
}

// patchBoot finds by trial the form that this BMC takes. The specification is read in three ways: If-Match must be sent
// (AMI), must not be sent (some iDRAC 10), or may be; and some refuse the mode although they show it.
func (r *redfish) patchBoot(c *call, s *computer, target BootTarget) error {
	boot := map[string]string{"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": targets[target]}
	switch target {
	case BootNone:
		boot["BootSourceOverrideEnabled"] = "Disabled"
	case BootHTTP, BootDisk:
		boot["BootSourceOverrideMode"] = "UEFI"
	}
	headers := map[string]string{}
	if s.etag != "" {
		headers["If-Match"] = s.etag
	}
	for range 4 {
		_, err := c.PatchWithHeaders(r.system, map[string]any{"Boot": boot}, headers)
		switch status(err) {
		case http.StatusPreconditionFailed:
			if headers["If-Match"] == "" {
				return err
			}
			delete(headers, "If-Match")
		case http.StatusPreconditionRequired:
			if headers["If-Match"] != "" {
				return err
			}
			headers["If-Match"] = "*"
		case http.StatusBadRequest:
			if boot["BootSourceOverrideMode"] == "" {
				return err
			}
			delete(boot, "BootSourceOverrideMode")
		default:
			return err
		}
	}
	return fmt.Errorf("the BMC takes no form of the request: %w", ErrNotSupported)
}

// keptBoot reads the override until it is what was set. Some BMCs need a moment to show it.
func (r *redfish) keptBoot(c *call, want BootTarget) error {
	const reads, pause = 4, 500 * time.Millisecond
	var shown BootTarget
	for i := range reads {
		if i > 0 {
			select {
			case <-time.After(pause):
			case <-c.ctx.Done():
				return network(c.ctx, c.ctx.Err())
			}
		}
		s, err := r.computer(c)
		if err != nil {
			return fmt.Errorf("reading it back: %w", err)
		}
		if shown = s.boot.target(); shown == want {
			return nil
		}
	}
	return fmt.Errorf("%w: it shows %s", ErrNotKept, shown)
}
