// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Address
		text string // of the result; empty means as given
	}{
		{"redfish://10.0.0.5", Address{Driver: "redfish", Host: "10.0.0.5", Port: 443}, ""},
		{"redfish://10.0.0.5/redfish/v1/Systems/1", Address{Driver: "redfish", Host: "10.0.0.5", Port: 443, System: "/redfish/v1/Systems/1"}, ""},
		{"redfish+https://bmc.example:8443/redfish/v1/Systems/System.Embedded.1/", Address{Driver: "redfish", Host: "bmc.example", Port: 8443, System: "/redfish/v1/Systems/System.Embedded.1"}, "redfish://bmc.example:8443/redfish/v1/Systems/System.Embedded.1"},
		{"redfish+http://10.0.0.5:8000/redfish/v1/Systems/1", Address{Driver: "redfish", Host: "10.0.0.5", Port: 8000, Plain: true, System: "/redfish/v1/Systems/1"}, ""},
		{"redfish+http://10.0.0.5", Address{Driver: "redfish", Host: "10.0.0.5", Port: 80, Plain: true}, ""},
		{"redfish-uefihttp://10.0.0.5/redfish/v1/Systems/1", Address{Driver: "redfish-uefihttp", Host: "10.0.0.5", Port: 443, System: "/redfish/v1/Systems/1"}, ""},
		{"redfish-uefihttp+http://10.0.0.5", Address{Driver: "redfish-uefihttp", Host: "10.0.0.5", Port: 80, Plain: true}, ""},
		{"redfish-virtualmedia+https://10.0.0.5", Address{Driver: "redfish-virtualmedia", Host: "10.0.0.5", Port: 443}, "redfish-virtualmedia://10.0.0.5"},
		{"idrac-redfish://10.0.0.5/redfish/v1/Systems/System.Embedded.1", Address{Driver: "idrac-redfish", Host: "10.0.0.5", Port: 443, System: "/redfish/v1/Systems/System.Embedded.1"}, ""},
		{"ilo5-redfish://ilo.example", Address{Driver: "ilo5-redfish", Host: "ilo.example", Port: 443}, ""},
		{"https://10.0.0.5/redfish/v1", Address{Driver: "redfish", Host: "10.0.0.5", Port: 443}, "redfish://10.0.0.5"},
		{"https://[FD00::5]:444/", Address{Driver: "redfish", Host: "fd00::5", Port: 444}, "redfish://[fd00::5]:444"},
		{"redfish://[fe80::5%25Eth0]:8443/redfish/v1/Systems/1", Address{Driver: "redfish", Host: "fe80::5%Eth0", Port: 8443, System: "/redfish/v1/Systems/1"}, ""},
		{"ipmi://10.0.0.5", Address{Driver: "ipmi", Host: "10.0.0.5", Port: 623}, ""},
		{"ipmi://10.0.0.5:6230/", Address{Driver: "ipmi", Host: "10.0.0.5", Port: 6230}, "ipmi://10.0.0.5:6230"},
		{"ipmi://[FD00::5]", Address{Driver: "ipmi", Host: "fd00::5", Port: 623}, "ipmi://[fd00::5]"},
		{" redfish://BMC-1.Example ", Address{Driver: "redfish", Host: "bmc-1.example", Port: 443}, "redfish://bmc-1.example"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseAddress(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			text := tt.text
			if text == "" {
				text = strings.TrimSpace(tt.in)
			}
			if got.String() != text {
				t.Errorf("String() = %q, want %q", got, text)
			}
			if again, err := ParseAddress(got.String()); err != nil || again != got {
				t.Errorf("parsing %q again: %+v, %v", got, again, err)
			}
		})
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, tt := range []struct {
		in           string
		notSupported bool
		says         string
	}{
		{"", false, "no scheme"},
		{"10.0.0.5", false, "no scheme"},
		{"redfish://", false, "no scheme or no host"},
		{"http://10.0.0.5", false, "redfish+http://"},
		{"ipmi+http://10.0.0.5", true, "unknown scheme"},
		{"ipmi://10.0.0.5/redfish/v1/Systems/1", false, "has no meaning with ipmi://"},
		{"ipmi://root:secret@10.0.0.5", false, "credentials belong in the Secret"},
		{"libvirt://192.168.122.1:6233/", true, "libvirt:// is not supported"},
		{"ftp://10.0.0.5", true, "unknown scheme"},
		{"redfish+ftp://10.0.0.5", true, "unknown transport"},
		{"redfish://root:secret@10.0.0.5", false, "credentials belong in the Secret"},
		{"redfish://10.0.0.5?x=1", false, "query"},
		{"redfish://10.0.0.5#x", false, "fragment"},
		{"redfish://10.0.0.5:0", false, "port"},
		{"redfish://10.0.0.5:99999", false, "port"},
		{"redfish://10.0.0.5:", false, "port"},
		{"redfish://10.0.0.5:4 4", false, "not a URL"},
		{"redfish://a_b..c", false, "host name"},
		{"redfish://bmc%00/", false, "not a URL"},
		{"redfish://10.0.0.5/redfish/v1/Managers/1", false, "Systems/ID"},
		{"redfish://10.0.0.5/redfish/v1/Systems/1/Bios", false, "Systems/ID"},
		{"redfish://10.0.0.5/redfish/v1/Systems/..", false, "Systems/ID"},
		{"redfish://10.0.0.5/redfish/v1/Systems//1", false, "Systems/ID"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseAddress(tt.in)
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			if errors.Is(err, ErrNotSupported) != tt.notSupported {
				t.Errorf("is ErrNotSupported: %v, want %v: %v", !tt.notSupported, tt.notSupported, err)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q repeats the password", err)
			}
		})
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"redfish://10.0.0.5/redfish/v1/Systems/1", "redfish+http://[fe80::1%25eth0]:8000", "https://bmc.example:443/", "ipmi://x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%q parses to %+v, printed %q, which parses to %+v, %v", s, a, a, again, err)
		}
		if a.Host == "" || a.Port == 0 || a.System != "" && !strings.HasPrefix(a.System, "/redfish/v1/Systems/") {
			t.Errorf("%q parses to %+v", s, a)
		}
	})
}
