// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"log/slog"
	"os"
	"strings"
	"testing"
)

// The words are ipmi_sim's: it asks and sets as its package's example program (ipmi_sim_chassiscontrol) says.
func TestChassis(t *testing.T) {
	r := testRack(t)
	m := &Machine{rack: r, spec: r.Spec(2), log: slog.New(slog.DiscardHandler)} // off: it has no QEMU
	if err := os.MkdirAll(m.path(""), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ asked, want, trouble string }{
		{"get power", "power:0\n", ""},
		{"get boot", "boot:none\n", ""},
		{"set boot pxe", "", ""},
		{"get boot power", "boot:pxe\npower:0\n", ""},
		{"set boot default", "", ""},
		{"get boot", "boot:default\n", ""},
		{"check boot bios", "", `boot cannot be set to "bios"`},
		{"set boot cdrom", "", `boot cannot be set to "cdrom"`},
		{"check power 1", "", ""},
		{"get power", "power:0\n", ""}, // a check does nothing
		{"set power 0", "", ""},
		{"set reset 1", "", "it is off"},
		{"set shutdown 1", "", ""},
		{"set boot none", "", ""},
		{"get boot", "boot:none\n", ""},
		{"get reset", "", "cannot be read"},
		{"set power", "", "pairs"},
		{"set identify 1", "", "cannot be set"},
		{"dance", "", "no such verb"},
	} {
		said, err := chassis(t.Context(), m, strings.Fields(c.asked))
		if said != c.want || (err == nil) != (c.trouble == "") || err != nil && !strings.Contains(err.Error(), c.trouble) {
			t.Errorf("%s: %q, %v; want %q, %q", c.asked, said, err, c.want, c.trouble)
		}
	}
}
