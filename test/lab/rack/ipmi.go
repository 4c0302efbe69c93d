// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"metald.io/metald/internal/bmc/bmctest/ipmisim"
)

// startIPMI starts a machine's keeper and the simulator in front of it.
func (r *Rack) startIPMI(ctx context.Context, spec Spec) error {
	password, err := r.Password(spec.Name)
	if err != nil {
		return err
	}
	if err := r.start(process{name: keeperName(spec.Name), argv: r.labCommand("keep", spec.Name)}); err != nil {
		return err
	}
	err = r.await(ctx, "the chassis of "+spec.Name, 20*time.Second, func(context.Context) error {
		if _, ok := r.Running(keeperName(spec.Name)); !ok {
			return fatal(fmt.Errorf("it ended: %s", r.lastLine(keeperName(spec.Name))))
		}
		_, err := r.Chassis(spec.Name, "get", "power")
		return err
	})
	if err != nil {
		return err
	}
	program, err := r.chassisProgram(spec.Name)
	if err != nil {
		return err
	}
	dir := r.Path("machines", spec.Name, "ipmi")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("starting the BMC of %s: %w", spec.Name, err)
	}
	argv, err := ipmisim.Config{
		Address: spec.BMC, Port: 623, User: spec.Username, Password: password, GUID: spec.UUID,
		Manufacturer: manufacturer, Product: product, Serial: spec.Serial, ChassisProgram: program, Dir: dir,
	}.Write()
	if err != nil {
		return err
	}
	return r.start(process{name: bmcName(spec.Name), argv: argv})
}

// chassisProgram is what the simulator starts. It lies where no path has a space, which the simulator could not write down.
func (r *Rack) chassisProgram(name string) (string, error) {
	path := filepath.Join(r.sockets(), name+".chassis.sh")
	// The simulator's first argument is the controller's address, of which there is one.
	text := fmt.Sprintf("#!/bin/sh\nshift\ncd %q && exec %q --rack %s chassis %s \"$@\"\n", r.Repo, r.Program("lab"), r.short(), name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		return "", fmt.Errorf("writing the chassis program of %s: %w", name, err)
	}
	return path, nil
}

// askIPMI asks a machine's BMC who it is, by Debian's ipmitool.
func (r *Rack) askIPMI(ctx context.Context, spec Spec) error {
	_, err := r.IPMI(ctx, spec.Name, "mc", "info")
	return err
}

// IPMI asks a machine's BMC as its administrator, past metald.
func (r *Rack) IPMI(ctx context.Context, name string, args ...string) (string, error) {
	spec, err := r.SpecOf(name)
	if err != nil {
		return "", err
	}
	if spec.Protocol != IPMI {
		return "", errors.New("asking " + name + " by IPMI: its BMC speaks " + spec.Protocol)
	}
	password, err := r.Password(name)
	if err != nil {
		return "", err
	}
	cmd := r.Inside(ctx, append([]string{"ipmitool", "-I", "lanplus", "-C", "3", "-N", "2", "-R", "2", "-H", spec.BMC, "-U", spec.Username, "-E"}, args...)...)
	cmd.Env = append(os.Environ(), "IPMI_PASSWORD="+password)
	return output(cmd)
}
