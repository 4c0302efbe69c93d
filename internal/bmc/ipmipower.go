// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/command/chassis"
)

// Power reads Get Chassis Status (IPMI 2.0, 28.2). It knows on and off, and nothing between.
func (i *ipmi) Power(ctx context.Context) (PowerState, error) {
	state := PowerUnknown
	err := i.with(ctx, func() (err error) {
		state, err = i.power(ctx)
		return err
	})
	if err != nil {
		return PowerUnknown, fmt.Errorf("reading power state: %w", err)
	}
	return state, nil
}

func (i *ipmi) power(ctx context.Context) (PowerState, error) {
	var status chassis.GetChassisStatusResponse
	if err := i.do(ctx, &chassis.GetChassisStatusRequest{}, &status); err != nil {
		return PowerUnknown, err
	}
	if status.PowerIsOn {
		return On, nil
	}
	return Off, nil
}

// controls says for each action in which state there is nothing to do, and what is sent otherwise (IPMI 2.0, 28.3).
var controls = map[PowerAction]struct {
	there PowerState
	send  chassis.ChassisControl
}{
	PowerOn:      {On, chassis.ChassisControlPowerUp},
	ForceOff:     {Off, chassis.ChassisControlPowerDown},
	GracefulOff:  {Off, chassis.ChassisControlSoftShutdown},
	ForceRestart: {"", chassis.ChassisControlHardReset},
}

// Switch changes the power by Chassis Control, which is sent once.
func (i *ipmi) Switch(ctx context.Context, action PowerAction) error {
	if _, ok := controls[action]; !ok {
		return fmt.Errorf("switching power: unknown action %q: %w", action, ErrNotSupported)
	}
	if err := i.with(ctx, func() error { return i.switchTo(ctx, action) }); err != nil {
		return fmt.Errorf("switching power (%s): %w", action, err)
	}
	return nil
}

func (i *ipmi) switchTo(ctx context.Context, action PowerAction) error {
	state, err := i.power(ctx) // this also finds out whether the session still lives
	if err != nil {
		return err
	}
	if action == ForceRestart && state == Off {
		action = PowerOn
	}
	how := controls[action]
	if state == how.there {
		return nil
	}
	err = i.once(ctx, &chassis.ChassisControlRequest{ChassisControl: how.send}, nil)
	if completed(err) == 0 {
		return err
	}
	// The machine may have got there by itself since it was read.
	if now, e := i.power(ctx); e == nil && now == how.there {
		return nil
	}
	return err
}
