// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	schema "github.com/stmcginnis/gofish/redfish"
)

// computer is the one ComputerSystem as it was read, with what gofish's type leaves out.
type computer struct {
	schema.ComputerSystem
	boot override
	etag string
}

// computer reads our system.
func (r *redfish) computer(c *call) (*computer, error) {
	var s computer
	var extra struct {
		ETag string `json:"@odata.etag"`
		Boot override
	}
	header, err := c.read(r.system, &s.ComputerSystem, &extra)
	if err != nil {
		return nil, fmt.Errorf("reading system: %w", err)
	}
	s.SetClient(c)
	s.boot = extra.Boot
	// Either of the two may be missing; the header is the one that If-Match is compared with.
	if s.etag = header.Get("ETag"); s.etag == "" {
		s.etag = extra.ETag
	}
	return &s, nil
}

// Power reads the power state.
func (r *redfish) Power(ctx context.Context) (PowerState, error) {
	state := PowerUnknown
	err := r.with(ctx, func(c *call) error {
		s, err := r.computer(c)
		if err == nil {
			state = power(s)
		}
		return err
	})
	if err != nil {
		return PowerUnknown, fmt.Errorf("reading power state: %w", err)
	}
	return state, nil
}

func power(s *computer) PowerState {
	switch p := PowerState(s.PowerState); p {
	case On, Off, PoweringOn, PoweringOff:
		return p
	}
	return PowerUnknown
}

// resets says for each action in which states there is nothing to do, and which ResetType is sent otherwise: the first that
// the BMC allows.
var resets = map[PowerAction]struct {
	there []PowerState
	send  []schema.ResetType
}{
	PowerOn:      {[]PowerState{On, PoweringOn}, []schema.ResetType{schema.OnResetType, schema.ForceOnResetType}},
	ForceOff:     {[]PowerState{Off}, []schema.ResetType{schema.ForceOffResetType}},
	GracefulOff:  {[]PowerState{Off, PoweringOff}, []schema.ResetType{schema.GracefulShutdownResetType}},
	ForceRestart: {nil, []schema.ResetType{schema.ForceRestartResetType, schema.PowerCycleResetType}},
}

// Switch changes the power.
func (r *redfish) Switch(ctx context.Context, action PowerAction) error {
	if _, ok := resets[action]; !ok {
		return fmt.Errorf("switching power: unknown action %q: %w", action, ErrNotSupported)
	}
	err := r.with(ctx, func(c *call) error { return r.switchTo(c, action) })
	if err != nil {
		return fmt.Errorf("switching power (%s): %w", action, err)
	}
	return nil
}

func (r *redfish) switchTo(c *call, action PowerAction) error {
	s, err := r.computer(c)
	if err != nil {
		return err
	}
	if action == ForceRestart && power(s) == Off {
		action = PowerOn // Redfish refuses to restart what is off
	}
	how := resets[action]
	if slices.Contains(how.there, power(s)) {
		return nil
	}
	kind, err := s.allowed(how.send)
	if err != nil {
		return err
	}
	// If-Match has no meaning on an action, and some firmware takes offence.
	s.DisableEtagMatch(true)
	err = s.Reset(kind)
	switch status(err) {
	case http.StatusBadRequest, http.StatusConflict:
		// The machine may have got there by itself since it was read.
		if again, e := r.computer(c); e == nil && slices.Contains(how.there, power(again)) {
			return nil
		}
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return err
}

// allowed picks the first reset type that the BMC offers; one that lists none is believed to take the first.
func (s *computer) allowed(types []schema.ResetType) (schema.ResetType, error) {
	if len(s.SupportedResetTypes) == 0 {
		return types[0], nil
	}
	for _, t := range types {
		if slices.Contains(s.SupportedResetTypes, t) {
			return t, nil
		}
	}
	return "", fmt.Errorf("the BMC offers no reset %v: %w", types, ErrNotSupported)
}
