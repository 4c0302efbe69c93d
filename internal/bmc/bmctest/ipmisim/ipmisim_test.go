// SPDX-License-Identifier: Apache-2.0

package ipmisim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	good := Config{
		Address: "127.0.0.1", Port: 6230, User: "root", Password: "calvin", GUID: "6d6574a1-0001-4002-8003-000000000001",
		Manufacturer: "Acme", Product: "R1", Serial: "S1", ChassisProgram: "/bin/true", Dir: t.TempDir(),
	}
	argv, err := good.Write()
	if err != nil {
		t.Fatal(err)
	}
	if argv[0] != "ipmi_sim" || len(argv) < 2 {
		t.Errorf("got command %q", argv)
	}
	for name, wants := range map[string][]string{
		"lan.conf": {"addr 127.0.0.1 6230", `user 2 true "root" "calvin" admin`, `chassis_control "/bin/true 0x20"`, "guid a174656d010002408003000000000001"},
		"sim.emu": {"mc_setbmc 0x20", "mc_set_guid 0x20 a174656d010002408003000000000001", "mc_enable 0x20",
			"data 0x01 0x00 0x00 0x00 0x01 0x00 0x00 0xfe 0x01 0x03 0x19 0xc4 0x41 0x63 0x6d 0x65 0xc2 0x52 0x31 0xc0 0xc0 0xc2 0x53 0x31 0xc0 0xc0 0xc1"},
	} {
		text, err := os.ReadFile(filepath.Join(good.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not hold %q:\n%s", name, want, text)
			}
		}
	}
	for name, change := range map[string]func(*Config){
		"space in the password": func(c *Config) { c.Password = "a b" },
		"quote in the user":     func(c *Config) { c.User = `a"b` },
		"long password":         func(c *Config) { c.Password = "12345678901234567" },
		"no program":            func(c *Config) { c.ChassisProgram = "" },
		"no UUID":               func(c *Config) { c.GUID = "x" },
	} {
		bad := good
		change(&bad)
		if _, err := bad.Write(); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
