// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// TestKindsAreShownAsMetal3Shows compares what a user of kubectl sees of each kind of group metal3.io with what Metal3 v0.13
// shows: scope, short names, whether there is a status to write, and the columns, of which those in brackets are wide.
func TestKindsAreShownAsMetal3Shows(t *testing.T) {
	want := map[string]string{
		"BareMetalHost":          "Namespaced, bmh bmhost, status: [Status] State Consumer [BMC] Online Error Age",
		"BMCEventSubscription":   "Namespaced, bes bmcevent, status: Error Age",
		"DataImage":              "Namespaced, , status: ",
		"FirmwareSchema":         "Namespaced, , : ",
		"HardwareData":           "Namespaced, hd, : Age",
		"HostClaim":              "Namespaced, , status: ",
		"HostDeployPolicy":       "Namespaced, , status: ",
		"HostFirmwareComponents": "Namespaced, , status: ",
		"HostFirmwareSettings":   "Namespaced, hfs, status: ",
		"HostUpdatePolicy":       "Namespaced, , : ",
		"PreprovisioningImage":   "Namespaced, ppimg, status: Ready Reason",
	}
	files, err := All()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	short := map[string]string{}
	for _, file := range files {
		definition, err := file.Parse()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append(definition.Spec.Names.ShortNames, definition.Spec.Names.Plural, definition.Spec.Names.Singular) {
			if other := short[name]; other != "" && other != definition.Spec.Names.Kind {
				t.Errorf("%s means both %s and %s", name, other, definition.Spec.Names.Kind)
			}
			short[name] = definition.Spec.Names.Kind
		}
		if definition.Spec.Group == "metal3.io" {
			got[definition.Spec.Names.Kind] = shown(definition)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds (-Metal3 +ours):\n%s", diff)
	}
}

func shown(definition *apiextensionsv1.CustomResourceDefinition) string {
	version := definition.Spec.Versions[0]
	status := ""
	if version.Subresources != nil && version.Subresources.Status != nil {
		status = "status"
	}
	var columns []string
	for _, c := range version.AdditionalPrinterColumns {
		if c.Priority > 0 {
			c.Name = "[" + c.Name + "]"
		}
		columns = append(columns, c.Name)
	}
	return fmt.Sprintf("%s, %s, %s: %s", definition.Spec.Scope, strings.Join(definition.Spec.Names.ShortNames, " "), status, strings.Join(columns, " "))
}
