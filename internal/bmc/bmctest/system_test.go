// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	systemPath = "/redfish/v1/Systems/1"
	resetPath  = systemPath + "/Actions/ComputerSystem.Reset"
)

// override reads Enabled and Target of the boot override.
func override(o map[string]any) [2]any {
	boot, _ := o["Boot"].(map[string]any)
	return [2]any{boot["BootSourceOverrideEnabled"], boot["BootSourceOverrideTarget"]}
}

func TestBootOverride(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int
		want       [2]any
	}{
		{"once", `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI"}}`, 200, [2]any{"Once", "UefiHttp"}},
		{"target alone has no effect", `{"Boot":{"BootSourceOverrideTarget":"Pxe"}}`, 200, [2]any{"Disabled", "Pxe"}},
		{"disabled", `{"Boot":{"BootSourceOverrideEnabled":"Disabled"}}`, 200, [2]any{"Disabled", "None"}},
		{"not for ever", `{"Boot":{"BootSourceOverrideEnabled":"Continuous","BootSourceOverrideTarget":"Pxe"}}`, 400, [2]any{"Disabled", "None"}},
		{"unknown target", `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Tape"}}`, 400, [2]any{"Disabled", "None"}},
		{"another property", `{"AssetTag":"x"}`, 400, [2]any{"Disabled", "None"}},
		{"garbage", `{"Boot":`, 400, [2]any{"Disabled", "None"}},
		{"wrong kind", `{"Boot":[1]}`, 400, [2]any{"Disabled", "None"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base, c := start(t, New(NewMemoryMachine(lab), Options{Username: "root", Password: "secret"}))
			if status, _, o := call(t, c, "PATCH", base+systemPath, "root", tt.body); status != tt.status {
				t.Errorf("status %d, want %d: %v", status, tt.status, o)
			}
			_, _, o := call(t, c, "GET", base+systemPath, "root", "")
			if diff := cmp.Diff(tt.want, override(o)); diff != "" {
				t.Errorf("override (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIfMatch(t *testing.T) {
	const body = `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}`
	for _, tt := range []struct {
		name                  string
		mode                  IfMatch
		none, right, star, no int // the status without the header, with the right tag, with "*", with another tag
	}{
		{"optional", IfMatchOptional, 200, 200, 200, 412},
		{"required", IfMatchRequired, 428, 200, 200, 412},
		{"refused", IfMatchRefused, 200, 412, 412, 412},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base, c := start(t, New(NewMemoryMachine(lab), Options{Username: "root", Password: "secret", IfMatch: tt.mode}))
			status, _, _ := call(t, c, "PATCH", base+systemPath, "root", body)
			got := []int{status}
			_, h, _ := call(t, c, "GET", base+systemPath, "root", "")
			for _, tag := range []string{h.Get("ETag"), "*", `"other"`} {
				status, _, _ = call(t, c, "PATCH", base+systemPath, "root", body, "If-Match", tag)
				got = append(got, status)
			}
			if diff := cmp.Diff([]int{tt.none, tt.right, tt.star, tt.no}, got); diff != "" {
				t.Errorf("statuses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReset(t *testing.T) {
	m := NewMemoryMachine(lab)
	base, c := start(t, New(m, Options{Username: "root", Password: "secret"}))
	if err := m.SetBootOnce(t.Context(), "UefiHttp"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		kind   string
		status int
		power  string
	}{
		{"ForceOff", 409, "Off"},
		{"Explode", 400, "Off"},
		{"On", 204, "On"},
		{"On", 409, "On"},
		{"ForceRestart", 204, "On"},
		{"PowerCycle", 204, "On"},
		{"GracefulShutdown", 204, "Off"},
		{"ForceRestart", 409, "Off"},
	} {
		status, _, _ := call(t, c, "POST", base+resetPath, "root", `{"ResetType":"`+tt.kind+`"}`)
		_, _, o := call(t, c, "GET", base+systemPath, "root", "")
		if status != tt.status || o["PowerState"] != tt.power {
			t.Errorf("%s: status %d, power %v; want %d, %s", tt.kind, status, o["PowerState"], tt.status, tt.power)
		}
	}
	// The first boot consumed the override.
	if diff := cmp.Diff([]string{"UefiHttp", "None", "None"}, m.Boots()); diff != "" {
		t.Errorf("boots (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	m := NewMemoryMachine(lab)
	b := New(m, Options{Username: "root", Password: "secret"})
	base, c := start(t, b)
	get := func() (int, map[string]any) {
		status, _, o := call(t, c, "GET", base+systemPath, "root", "")
		return status, o
	}

	b.Fault(Rule{Method: "GET", Path: "/redfish/v1/Systems*", Times: 1, Status: 503})
	if status, _ := get(); status != 503 {
		t.Errorf("status %d, want 503", status)
	}
	if status, _ := get(); status != 200 {
		t.Errorf("after the rule was spent: status %d, want 200", status)
	}

	remove := b.Fault(Rule{PowerState: "PoweringOff"})
	if _, o := get(); o["PowerState"] != "PoweringOff" {
		t.Errorf("power %v, want the lie", o["PowerState"])
	}
	remove()
	if _, o := get(); o["PowerState"] != "Off" {
		t.Errorf("power %v, want the truth", o["PowerState"])
	}

	b.Fault(Rule{Path: resetPath, ForgetReset: true, Times: 1})
	if status, _, _ := call(t, c, "POST", base+resetPath, "root", `{"ResetType":"On"}`); status != 204 || len(m.Boots()) != 0 {
		t.Errorf("forgotten reset: status %d, boots %v", status, m.Boots())
	}

	b.Fault(Rule{ForgetBoot: true, Times: 1})
	if _, _, o := call(t, c, "PATCH", base+systemPath, "root", `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}`); override(o) != [2]any{"Disabled", "None"} {
		t.Errorf("forgotten override: %v", override(o))
	}

	m.Fail(errors.New("no QEMU"))
	if status, _ := get(); status != 500 {
		t.Errorf("broken machine: status %d, want 500", status)
	}

	b.Fault(Rule{Hang: true, Times: 1})
	impatient := &http.Client{Transport: c.Transport, Timeout: 50 * time.Millisecond}
	if _, err := impatient.Get(base + "/redfish/v1"); err == nil {
		t.Error("a hung BMC answered")
	}
}
