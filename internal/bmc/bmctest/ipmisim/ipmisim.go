// SPDX-License-Identifier: Apache-2.0

// Package ipmisim writes the configuration of ipmi_sim, the IPMI BMC of Debian's package openipmi, and says how to start it.
// It is a lanplus BMC that nobody here wrote; what it switches is a program of the caller's.
//
// ipmi_sim runs that program for each request and is deaf meanwhile, so the program must return at once and leave nothing
// behind that holds its standard output open. It is called as
//
//	PROGRAM 0x20 get power          prints "power:1" or "power:0"
//	PROGRAM 0x20 get boot           prints "boot:" and none, pxe, default (the hard drive), cdrom or bios
//	PROGRAM 0x20 set power 1|0      on and off; a power cycle is 0 and, a second later, 1, with no request between
//	PROGRAM 0x20 set reset 1
//	PROGRAM 0x20 set shutdown 1     asks the operating system to go down
//	PROGRAM 0x20 set boot VALUE     one of the above; the program must forget it when the machine has booted
//	PROGRAM 0x20 set identify N F   may be refused
//
// A set prints nothing; anything else than exit status 0 becomes completion code FFh (unspecified error). Setting boot flags
// comes with a "get boot" before it (the client's boot info acknowledge), which must work while nothing was set.
//
// What it lacks: cipher suite 17 (it answers status 4, invalid authentication algorithm), the boot flags' valid and EFI bits
// (always shown as zero), boot targets beyond those named, keeping boot flags by itself.
//
// It must not know the house: it imports nothing of it. Start reading at Config.
package ipmisim

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Config is one simulated BMC. User, Password and the rest must hold no space, quote or backslash: ipmi_sim's files know no way
// to write them, and one bad line stops it without a word.
type Config struct {
	// Address and Port are where it listens, by UDP.
	Address string
	Port    uint16
	// User and Password are its one account, an administrator; each at most 16 bytes.
	User     string
	Password string
	// GUID is the machine's SMBIOS UUID, as dmidecode prints it. It is shown in SMBIOS byte order, as most BMCs do.
	GUID string
	// Manufacturer, Product and Serial are the product area of FRU 0; all empty means that there is no FRU.
	Manufacturer string
	Product      string
	Serial       string
	// ChassisProgram is the path of the program that switches the machine; see the package's comment.
	ChassisProgram string
	// Dir is where the files are written, and what ipmi_sim keeps. It must exist.
	Dir string
}

// Write writes the configuration and returns the command that runs the simulator in the foreground. It answers within a second
// of its start; it needs no root for ports above 1023, and ends at SIGTERM.
func (c Config) Write() (argv []string, err error) {
	for name, v := range map[string]string{"address": c.Address, "user": c.User, "password": c.Password, "chassis program": c.ChassisProgram} {
		if v == "" || strings.ContainsAny(v, " \t\n\"\\") {
			return nil, fmt.Errorf("writing ipmi_sim's configuration: %s %q is empty or has a character that its files cannot hold", name, v)
		}
	}
	if len(c.User) > 16 || len(c.Password) > 16 {
		return nil, fmt.Errorf("writing ipmi_sim's configuration: user or password is longer than 16 bytes")
	}
	guid, err := smbios(c.GUID)
	if err != nil {
		return nil, fmt.Errorf("writing ipmi_sim's configuration: %w", err)
	}
	lan, commands, state := filepath.Join(c.Dir, "lan.conf"), filepath.Join(c.Dir, "sim.emu"), filepath.Join(c.Dir, "state")
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, fmt.Errorf("writing ipmi_sim's configuration: %w", err)
	}
	for path, text := range map[string]string{lan: c.lan(guid), commands: c.commands(guid)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("writing ipmi_sim's configuration: %w", err)
		}
	}
	// Without -n it reads commands from its standard input, and ends with it.
	return []string{"ipmi_sim", "-n", "-c", lan, "-f", commands, "-s", state}, nil
}

// lan is the file of ipmi_lan(5): who may come in by which door.
func (c Config) lan(guid string) string {
	auths := "none md2 md5 straight"
	return fmt.Sprintf(`name "metald"
set_working_mc 0x20
startlan 1
  addr %s %d
  priv_limit admin
  allowed_auths_callback %s
  allowed_auths_user %s
  allowed_auths_operator %s
  allowed_auths_admin %s
  guid %s
endlan
chassis_control "%s 0x20"
user 1 false "" "" user 1 %s
user 2 true "%s" "%s" admin 10 %s
`, c.Address, c.Port, auths, auths, auths, auths, guid, c.ChassisProgram, auths, c.User, c.Password, auths)
}

// commands is the file of ipmi_sim_cmd(5): the one management controller, version 2.13 of an unnamed firmware, that has a chassis.
func (c Config) commands(guid string) string {
	text := fmt.Sprintf("mc_setbmc 0x20\nmc_add 0x20 0x20 no-device-sdrs 0x01 2 0x13 0x89 0x1291 0xf02\nmc_set_guid 0x20 %s\n", guid)
	if c.Manufacturer != "" || c.Product != "" || c.Serial != "" {
		data := c.fru()
		text += fmt.Sprintf("mc_add_fru_data 0x20 0 %d data", len(data))
		for _, b := range data {
			text += fmt.Sprintf(" 0x%02x", b)
		}
		text += "\n"
	}
	return text + "mc_enable 0x20\n"
}

// fru is an inventory with a product area only (IPMI FRU Information Storage Definition, 8 and 12).
func (c Config) fru() []byte {
	area := []byte{1, 0, 25} // version, length in eights, English
	for _, v := range []string{c.Manufacturer, c.Product, "", "", c.Serial, "", ""} {
		v = v[:min(len(v), 63)]
		area = append(append(area, 0xc0|byte(len(v))), v...)
	}
	area = append(area, 0xc1)
	for len(area)%8 != 7 {
		area = append(area, 0)
	}
	area[1] = byte((len(area) + 1) / 8)
	header := []byte{1, 0, 0, 0, 1, 0, 0}
	return append(append(header, checksum(header)), append(area, checksum(area))...)
}

func checksum(data []byte) byte {
	var sum byte
	for _, b := range data {
		sum += b
	}
	return -sum
}

// smbios is a UUID in the byte order of SMBIOS (DSP0134, 7.2.1): the first three fields have their least significant byte first.
func smbios(uuid string) (string, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil || len(b) != 16 {
		return "", fmt.Errorf("%q is no UUID", uuid)
	}
	b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7] = b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]
	return hex.EncodeToString(b), nil
}
