// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/internal/bmc/bmctest"
)

// TestIdentityOfAPoorBMC: what a BMC does not tell is empty and no error; what it could not be asked is an error.
func TestIdentityOfAPoorBMC(t *testing.T) {
	factory := `{"@odata.id":"/redfish/v1/Systems/1","Id":"1","Name":"System","Manufacturer":"To Be Filled By O.E.M.","Model":" ","SerialNumber":"0123456789",
		"UUID":"00000000-0000-0000-0000-000000000000","BiosVersion":null,"PowerState":"Off",
		"EthernetInterfaces":{"@odata.id":"/redfish/v1/Systems/1/EthernetInterfaces"},"Links":{"ManagedBy":[{"@odata.id":"/redfish/v1/Managers/1"}]}}`
	for _, tt := range []struct {
		name  string
		rules []bmctest.Rule
		want  Identity
		err   error
	}{
		{
			name:  "no ports, no manager",
			rules: []bmctest.Rule{{Path: pathOne + "/EthernetInterfaces", Status: 404}, {Path: "/redfish/v1/Managers*", Status: 404}},
			want:  Identity{Manufacturer: "Acme", Model: "R1", SerialNumber: "S1", SystemUUID: "6d6574a1-0000-4000-8000-000000000001", BIOSVersion: "2.7"},
		},
		{
			name:  "factory values",
			rules: []bmctest.Rule{{Method: "GET", Path: pathOne, Status: 200, Body: []byte(factory)}},
			want:  Identity{BMCVersion: "1.0.0", MACs: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}},
		},
		{
			name:  "no addresses in the ports",
			rules: []bmctest.Rule{{Path: pathOne + "/EthernetInterfaces/*", Status: 200, Body: []byte(`{"MACAddress":"","PermanentMACAddress":"00:00:00:00:00:00"}`)}},
			want:  Identity{Manufacturer: "Acme", Model: "R1", SerialNumber: "S1", SystemUUID: "6d6574a1-0000-4000-8000-000000000001", BIOSVersion: "2.7", BMCVersion: "1.0.0"},
		},
		{name: "ports hang", rules: []bmctest.Rule{{Path: pathOne + "/EthernetInterfaces*", Hang: true}}, err: ErrUnreachable},
		{name: "manager hangs", rules: []bmctest.Rule{{Path: "/redfish/v1/Managers*", Hang: true}}, err: ErrUnreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, bmctest.Options{})
			c := g.dial(t)
			for _, r := range tt.rules {
				g.Fault(r)
			}
			got, err := c.Identity(soon(t))
			if !errors.Is(err, tt.err) {
				t.Fatalf("Identity() = %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTold(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " ": "", "N/A": "", "To be filled by O.E.M.": "", "0123456789": "", "Default string": "",
		" PowerEdge R760 ": "PowerEdge R760", "a\x00b\nc": "a b c", "Gigabyte\u202e": "Gigabyte ", "\xff\xfe": "",
	} {
		if got := told(in); got != want {
			t.Errorf("told(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"6D6574A1-0000-4000-8000-000000000001": "6d6574a1-0000-4000-8000-000000000001",
		"00000000-0000-0000-0000-000000000000": "", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF": "",
		"6D6574A1": "", "": "", "6D6574A1-0000-4000-8000-00000000000g": "",
	} {
		if got := uuid(in); got != want {
			t.Errorf("uuid(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"52:54:00:AB:CD:EF": "52:54:00:ab:cd:ef", "52-54-00-ab-cd-ef": "52:54:00:ab:cd:ef", "00:00:00:00:00:00": "",
		"": "", "x": "", "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01": "",
	} {
		if got := mac(in); got != want {
			t.Errorf("mac(%q) = %q, want %q", in, got, want)
		}
	}
}
