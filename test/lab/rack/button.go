// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"golang.org/x/term"
)

const system = "/redfish/v1/Systems/1"

// Button does to a machine what a person at its BMC would: on, off, reset, or netboot (the next boot is from the network).
// metald is not told.
func (r *Rack) Button(ctx context.Context, name, button string) error {
	spec, err := r.SpecOf(name)
	if err != nil {
		return err
	}
	if spec.Protocol == IPMI {
		lines := map[string][]string{"on": {"power", "1"}, "off": {"power", "0"}, "reset": {"reset", "1"}, "netboot": {"boot", "pxe"}}
		line := lines[button]
		if line == nil {
			return noButton(button)
		}
		_, err := r.Chassis(name, "set", line[0], line[1])
		return err
	}
	resets := map[string]string{"on": "On", "off": "ForceOff", "reset": "ForceRestart"}
	switch kind := resets[button]; {
	case button == "off" && !r.On(name):
	case kind != "":
		_, err = r.Redfish(ctx, name, http.MethodPost, system+"/Actions/ComputerSystem.Reset", `{"ResetType":"`+kind+`"}`)
	case button == "netboot":
		_, err = r.Redfish(ctx, name, http.MethodPatch, system,
			`{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"`+spec.Network+`","BootSourceOverrideMode":"UEFI"}}`)
	default:
		err = noButton(button)
	}
	return err
}

func noButton(button string) error {
	return fmt.Errorf("no such button as %q: on, off, reset, netboot", button)
}

// On says whether the machine runs; a Redfish service refuses to switch off what is off.
func (r *Rack) On(name string) bool {
	_, running := r.Running(name + ".qemu")
	return running
}

// Console joins a machine's serial port to a terminal until Ctrl-] or the end of input.
func (r *Rack) Console(ctx context.Context, name string, in *os.File, out io.Writer) error {
	conn, err := net.Dial("unix", r.socket(name, "console"))
	if err != nil {
		return fmt.Errorf("opening the console of %s (is it on?): %w", name, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if fd := int(in.Fd()); term.IsTerminal(fd) {
		before, err := term.MakeRaw(fd)
		if err != nil {
			return fmt.Errorf("opening the console of %s: %w", name, err)
		}
		defer term.Restore(fd, before)
		fmt.Fprintf(out, "console of %s; Ctrl-] leaves\r\n", name)
	}
	go func() {
		defer conn.Close()
		buffer := make([]byte, 256)
		for {
			n, err := in.Read(buffer)
			for _, b := range buffer[:n] {
				if b == 0x1d {
					return
				}
			}
			if _, werr := conn.Write(buffer[:n]); werr != nil || err != nil {
				return
			}
		}
	}()
	if _, err := io.Copy(out, conn); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("reading the console of %s: %w", name, err)
	}
	return nil
}
