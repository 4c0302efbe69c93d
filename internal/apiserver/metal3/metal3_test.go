// SPDX-License-Identifier: Apache-2.0

package metal3

import (
	"maps"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// parse reads YAML; a tab in a table would be none.
func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	if text == "" {
		return nil
	}
	object := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// hostText is a host with a change to its metadata, its spec and its status.
func hostText(meta, spec, status string) string {
	return "{apiVersion: metal3.io/v1alpha1, kind: BareMetalHost, metadata: {namespace: a, name: n1" + meta + "}, spec: {online: true" + spec + "}, status: {" + status + "}}"
}

func other(kind, meta, spec string) string {
	return "{apiVersion: metal3.io/v1alpha1, kind: " + kind + ", metadata: {namespace: a, name: o" + meta + "}, spec: {" + spec + "}}"
}

const (
	bmcPart = `, bmc: {address: "redfish://192.0.2.1/redfish/v1/Systems/1", credentialsName: s}`
	macPart = `, bootMACAddress: "52:54:00:00:00:01"`
)

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		kind    string
		is, was string
		want    string // in the refusal; "" accepts
	}{
		"a host without a BMC":             {"BareMetalHost", hostText("", "", ""), "", ""},
		"a host":                           {"BareMetalHost", hostText("", bmcPart+macPart, ""), "", ""},
		"a host with a field of tomorrow":  {"BareMetalHost", hostText("", bmcPart+macPart+", networkInterfaces: [{name: a}]", ""), "", ""},
		"a name with a space":              {"BareMetalHost", strings.Replace(hostText("", "", ""), "name: n1", "name: n 1", 1), "", "metadata.name: Invalid"},
		"a UUID for a name":                {"BareMetalHost", strings.Replace(hostText("", "", ""), "n1", "c0ffee00-0000-4000-8000-000000000001", 1), "", "cannot be a UUID"},
		"a bare address is IPMI's":         {"BareMetalHost", hostText("", `, bmc: {address: "192.0.2.1:6230"}`, ""), "", ""},
		"an unknown BMC type":              {"BareMetalHost", hostText("", `, bmc: {address: "foo://192.0.2.1"}`, ""), "", `spec.bmc.address: Invalid value: has the unknown BMC type "foo"`},
		"a transport that IPMI lacks":      {"BareMetalHost", hostText("", `, bmc: {address: "ipmi+https://192.0.2.1"}`, ""), "", "unknown BMC type"},
		"a broken host name":               {"BareMetalHost", hostText("", `, bmc: {address: "redfish://a_b"}`+macPart, ""), "", `"a_b"`},
		"a password in a broken URL":       {"BareMetalHost", hostText("", `, bmc: {address: "redfish://u:hunter2@%zz"}`, ""), "", "is not a URL"},
		"another BMC while provisioned":    {"BareMetalHost", hostText("", bmcPart+macPart, "provisioning: {state: provisioned}"), hostText("", `, bmc: {address: "redfish://192.0.2.2"}`+macPart, "provisioning: {state: provisioned}"), "spec.bmc.address: Forbidden"},
		"another BMC while registering":    {"BareMetalHost", hostText("", bmcPart+macPart, "provisioning: {state: registering}"), hostText("", `, bmc: {address: "redfish://192.0.2.2"}`+macPart, ""), ""},
		"another BMC of a new host":        {"BareMetalHost", hostText("", bmcPart+macPart, ""), hostText("", `, bmc: {address: "redfish://192.0.2.2"}`+macPart, ""), ""},
		"another BMC while detached":       {"BareMetalHost", hostText("", bmcPart+macPart, "operationalStatus: detached, provisioning: {state: provisioned}"), hostText("", `, bmc: {address: "redfish://192.0.2.2"}`+macPart, ""), ""},
		"a first BMC":                      {"BareMetalHost", hostText("", bmcPart+macPart, "provisioning: {state: unmanaged}"), hostText("", "", ""), ""},
		"a broken MAC":                     {"BareMetalHost", hostText("", `, bootMACAddress: "52:54"`, ""), "", "spec.bootMACAddress: Invalid"},
		"no MAC with Redfish":              {"BareMetalHost", hostText("", bmcPart, ""), "", "spec.bootMACAddress: Required value: BMC driver redfish requires it"},
		"no MAC with virtual media":        {"BareMetalHost", hostText("", `, bmc: {address: "redfish-virtualmedia://192.0.2.1"}`, ""), "", ""},
		"no MAC without inspection":        {"BareMetalHost", hostText("", `, bmc: {address: "redfish-virtualmedia://192.0.2.1"}, inspectionMode: disabled`, ""), "", "spec.bootMACAddress: Required"},
		"another MAC":                      {"BareMetalHost", hostText("", bmcPart+`, bootMACAddress: "52:54:00:00:00:02"`, ""), hostText("", bmcPart+macPart, ""), "spec.bootMACAddress: Forbidden"},
		"the same MAC in capitals":         {"BareMetalHost", hostText("", bmcPart+`, bootMACAddress: "52:54:00:00:00:0A"`, ""), hostText("", bmcPart+`, bootMACAddress: "52:54:00:00:00:0a"`, ""), ""},
		"secure boot with IPMI":            {"BareMetalHost", hostText("", `, bmc: {address: "ipmi://192.0.2.1"}, bootMode: UEFISecureBoot`, ""), "", "spec.bootMode: Invalid"},
		"old firmware settings":            {"BareMetalHost", hostText("", bmcPart+macPart+", firmware: {sriovEnabled: true}", ""), "", "use HostFirmwareSettings"},
		"RAID with IPMI":                   {"BareMetalHost", hostText("", `, bmc: {address: "ipmi://192.0.2.1"}, raid: {hardwareRAIDVolumes: [{level: "1"}]}`, ""), "", "does not support configuring RAID"},
		"RAID of both kinds":               {"BareMetalHost", hostText("", `, raid: {hardwareRAIDVolumes: [{level: "1"}], softwareRAIDVolumes: [{level: "1"}]}`, ""), "", "softwareRAIDVolumes: Forbidden"},
		"RAID without a controller":        {"BareMetalHost", hostText("", `, raid: {hardwareRAIDVolumes: [{level: "1", physicalDisks: [a, b]}]}`, ""), "", "hardwareRAIDVolumes[0].controller: Required"},
		"RAID that cannot count":           {"BareMetalHost", hostText("", `, raid: {hardwareRAIDVolumes: [{level: "1", controller: c, numberOfPhysicalDisks: 3, physicalDisks: [a, b]}]}`, ""), "", "numberOfPhysicalDisks: Invalid value: 3"},
		"a root disk by path":              {"BareMetalHost", hostText("", `, rootDeviceHints: {deviceName: /dev/disk/by-path/pci-1}`, ""), "", ""},
		"a root disk by id":                {"BareMetalHost", hostText("", `, rootDeviceHints: {deviceName: /dev/disk/by-id/x}`, ""), "", "rootDeviceHints.deviceName: Invalid"},
		"a root disk nowhere":              {"BareMetalHost", hostText("", `, rootDeviceHints: {deviceName: sda}`, ""), "", "rootDeviceHints.deviceName: Invalid"},
		"an image":                         {"BareMetalHost", hostText("", `, image: {url: "http://a/b", checksum: abc, checksumType: sha256, format: raw}`, ""), "", ""},
		"an image without a checksum":      {"BareMetalHost", hostText("", `, image: {url: "http://a/b"}`, ""), "", "spec.image.checksum: Invalid"},
		"a live ISO without a checksum":    {"BareMetalHost", hostText("", `, image: {url: "http://a/b", format: live-iso}`, ""), "", ""},
		"an OCI image without a checksum":  {"BareMetalHost", hostText("", `, image: {url: "oci://a/b"}`, ""), "", ""},
		"an image of an odd checksum":      {"BareMetalHost", hostText("", `, image: {url: "http://a/b", checksum: abc, checksumType: crc}`, ""), "", "unknown checksumType crc"},
		"an image from nowhere":            {"BareMetalHost", hostText("", `, image: {url: "b", checksum: abc}`, ""), "", "spec.image.url: Invalid"},
		"user data from elsewhere":         {"BareMetalHost", hostText("", `, userData: {name: s, namespace: b}`, ""), "", "spec.userData.namespace: Forbidden"},
		"user data from here":              {"BareMetalHost", hostText("", `, userData: {name: s, namespace: a}, metaData: {name: s}`, ""), "", ""},
		"adopted at creation":              {"BareMetalHost", hostText("", ", externallyProvisioned: true", ""), "", ""},
		"adopted while available":          {"BareMetalHost", hostText("", ", externallyProvisioned: true", "provisioning: {state: available}"), hostText("", "", ""), ""},
		"adopted while provisioned":        {"BareMetalHost", hostText("", ", externallyProvisioned: true", "provisioning: {state: provisioned}"), hostText("", "", ""), `it is "provisioned"`},
		"inspection that contradicts":      {"BareMetalHost", hostText(", annotations: {inspect.metal3.io: disabled}", ", inspectionMode: agent", ""), "", "spec.inspectionMode: Invalid"},
		"power that cannot be":             {"BareMetalHost", strings.Replace(hostText("", ", disablePowerOff: true", ""), "online: true", "online: false", 1), "", "spec.disablePowerOff: Forbidden"},
		"a status to restore":              {"BareMetalHost", hostText(`, annotations: {baremetalhost.metal3.io/status: '{"operationalStatus":"servicing","errorType":"detach error"}'}`, "", ""), "", ""},
		"a status with an unknown field":   {"BareMetalHost", hostText(`, annotations: {baremetalhost.metal3.io/status: '{"foo":1}'}`, "", ""), "", "unknown field"},
		"a status with an unknown state":   {"BareMetalHost", hostText(`, annotations: {baremetalhost.metal3.io/status: '{"operationalStatus":"odd"}'}`, "", ""), "", `"odd"`},
		"a status with an unknown error":   {"BareMetalHost", hostText(`, annotations: {baremetalhost.metal3.io/status: '{"operationalStatus":"OK","errorType":"odd"}'}`, "", ""), "", `"odd"`},
		"a reboot":                         {"BareMetalHost", hostText(`, annotations: {reboot.metal3.io: "", reboot.metal3.io/a: '{"mode":"hard"}'}`, "", ""), "", ""},
		"a reboot of a third kind":         {"BareMetalHost", hostText(`, annotations: {reboot.metal3.io/a: '{"mode":"odd"}'}`, "", ""), "", "mode: Unsupported"},
		"a reboot that is no JSON":         {"BareMetalHost", hostText(`, annotations: {reboot.metal3.io: now}`, "", ""), "", "is not JSON"},
		"another word for inspection":      {"BareMetalHost", hostText(`, annotations: {inspect.metal3.io: later}`, "", ""), "", `supported values: "disabled", ""`},
		"details while it is inspected":    {"BareMetalHost", hostText(`, annotations: {inspect.metal3.io/hardwaredetails: '{}'}`, "", ""), "", "inspection is disabled"},
		"details":                          {"BareMetalHost", hostText(`, annotations: {inspect.metal3.io/hardwaredetails: '{"ramMebibytes":1}'}`, ", inspectionMode: disabled", ""), "", ""},
		"details of something else":        {"BareMetalHost", hostText(`, annotations: {inspect.metal3.io/hardwaredetails: '{"foo":1}'}`, ", inspectionMode: disabled", ""), "", "is not hardware details"},
		"any word for detached":            {"BareMetalHost", hostText(`, annotations: {baremetalhost.metal3.io/detached: whatever}`, "", ""), "", ""},
		"a label on a host that was wrong": {"BareMetalHost", hostText(", labels: {a: b}", bmcPart, ""), hostText("", bmcPart, ""), ""},

		"a subscription":                     {"BMCEventSubscription", other("BMCEventSubscription", "", `hostName: n1, destination: "https://a/", httpHeadersRef: {name: s, namespace: a}`), "", ""},
		"a subscription to no host":          {"BMCEventSubscription", other("BMCEventSubscription", "", `destination: "https://a/"`), "", "spec.hostName: Required"},
		"a subscription to nowhere":          {"BMCEventSubscription", other("BMCEventSubscription", "", `hostName: n1`), "", "spec.destination: Required"},
		"a subscription to a name":           {"BMCEventSubscription", other("BMCEventSubscription", "", `hostName: n1, destination: a`), "", "spec.destination: Invalid"},
		"a subscription without a path":      {"BMCEventSubscription", other("BMCEventSubscription", "", `hostName: n1, destination: "https://a"`), "", "trailing slash"},
		"a subscription with others' secret": {"BMCEventSubscription", other("BMCEventSubscription", "", `hostName: n1, destination: "https://a/", httpHeadersRef: {name: s, namespace: b}`), "", "httpHeadersRef.namespace: Invalid"},
		"a subscription that changes":        {"BMCEventSubscription", other("BMCEventSubscription", "", `hostName: n1, destination: "https://a/b"`), other("BMCEventSubscription", "", `hostName: n1, destination: "https://a/"`), "spec: Forbidden"},

		"a data image":               {"DataImage", other("DataImage", "", `url: "https://a/b.iso"`), "", ""},
		"a data image by FTP":        {"DataImage", other("DataImage", "", `url: "ftp://a/b.iso"`), "", `scheme "ftp"`},
		"firmware":                   {"HostFirmwareComponents", other("HostFirmwareComponents", "", `updates: [{component: bios, url: "https://a/b"}]`), "", ""},
		"firmware from nowhere":      {"HostFirmwareComponents", other("HostFirmwareComponents", "", `updates: [{component: bios, url: b}]`), "", "spec.updates[0].url: Invalid"},
		"a policy":                   {"HostDeployPolicy", other("HostDeployPolicy", "", `hostClaimNamespaces: {nameMatches: "^t-"}`), "", ""},
		"a policy of everybody":      {"HostDeployPolicy", other("HostDeployPolicy", "", ""), "", ""},
		"a policy that is no regexp": {"HostDeployPolicy", other("HostDeployPolicy", "", `hostClaimNamespaces: {nameMatches: "("}`), "", "nameMatches: Invalid"},

		"a claim":                       {"HostClaim", other("HostClaim", "", `poweredOn: true, hostSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: in, values: [b, c]}, {key: b, operator: exists, values: []}]}`), "", ""},
		"a claim with others' secret":   {"HostClaim", other("HostClaim", "", `networkData: {name: s, namespace: b}`), "", "spec.networkData.namespace: Forbidden"},
		"a claim by no label":           {"HostClaim", other("HostClaim", "", `hostSelector: {matchLabels: {"a b": c}}`), "", "hostSelector.matchLabels: Invalid"},
		"a claim by a broken value":     {"HostClaim", other("HostClaim", "", `hostSelector: {matchExpressions: [{key: a, operator: "=", values: ["b c"]}]}`), "", "matchExpressions[0].values[0]: Invalid"},
		"a claim by an odd operator":    {"HostClaim", other("HostClaim", "", `hostSelector: {matchExpressions: [{key: a, operator: near, values: [b]}]}`), "", "matchExpressions[0].operator: Invalid"},
		"a claim by two equal values":   {"HostClaim", other("HostClaim", "", `hostSelector: {matchExpressions: [{key: a, operator: "=", values: [b, c]}]}`), "", "takes exactly one value"},
		"a claim by a value of nothing": {"HostClaim", other("HostClaim", "", `hostSelector: {matchExpressions: [{key: a, operator: in, values: []}]}`), "", "takes at least one value"},
		"a claim by a value too many":   {"HostClaim", other("HostClaim", "", `hostSelector: {matchExpressions: [{key: a, operator: "!", values: [b]}]}`), "", "takes no values"},
		"a claim of a bad image":        {"HostClaim", other("HostClaim", "", `image: {url: "http://a/b"}`), "", "spec.image.checksum: Invalid"},
		"a claim that reboots oddly":    {"HostClaim", other("HostClaim", `, annotations: {reboot.metal3.io: "x"}`, ""), "", "is not JSON"},

		"a kind without rules": {"HostFirmwareSettings", other("HostFirmwareSettings", "", "settings: {a: b}"), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			errs, err := Check(test.kind, parse(t, test.is), parse(t, test.was))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(errs) > 0 {
				got = errs.ToAggregate().Error()
			}
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if strings.Contains(got, "hunter2") {
				t.Errorf("the refusal shows a password: %s", got)
			}
			for _, e := range errs { // each refusal is one of a row of the table
				known := false
				for _, rule := range Rules() {
					known = known || rule.Kind == test.kind && covers(rule.Field, e.Field)
				}
				if !known {
					t.Errorf("%s is in no row of the table", e.Field)
				}
			}
		})
	}
}

// covers says whether a row's field is the one that an error names, or holds it.
func covers(row, named string) bool {
	before, rest, ok := strings.Cut(row, "{")
	if !ok {
		return strings.HasPrefix(strings.ReplaceAll(named, "[0]", "[]"), row)
	}
	for word := range strings.SplitSeq(strings.TrimSuffix(rest, "}"), ",") {
		if strings.HasPrefix(named, before+word) {
			return true
		}
	}
	return false
}

// TestEveryKindIsListed keeps the table that is shown in step with the one that is used.
func TestEveryKindIsListed(t *testing.T) {
	listed := map[string]int{}
	for _, rule := range Rules() {
		listed[rule.Kind]++
	}
	want := map[string]int{}
	for name, kind := range kinds {
		want[name] = len(kind.rules)
	}
	if !maps.Equal(listed, want) {
		t.Errorf("rules listed: got %v, want %v", listed, want)
	}
}

// TestDocumented compares the table with the one that users read.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range Rules() {
		row := "| " + rule.Kind + " | `" + rule.Field + "` | " + rule.Says + " | " + rule.Source + " |"
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/api.md lacks the row\n%s", row)
		}
	}
}

func TestCheckRefusesAnotherShape(t *testing.T) {
	if _, err := Check("BareMetalHost", map[string]any{"spec": "a"}, nil); err == nil {
		t.Error("got no error for a spec that is a word")
	}
}
