// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"metald.io/metald/api/v1alpha1"
)

func TestEvidenceOfTwoHostsIsRefused(t *testing.T) {
	m := &Mind{evidence: newIndex(), now: time.Now, hosts: newMirror(func(*metal3.BareMetalHost, bool) {}),
		progress:    newMirror(func(*v1alpha1.HostProgress, bool) {}),
		inventories: newMirror(func(*v1alpha1.HostInventory, bool) {})}
	for _, name := range []string{"a", "b"} {
		h := &metal3.BareMetalHost{}
		h.Namespace, h.Name = "default", name
		m.hosts.items[keyOf(h)] = h
		m.evidence.set(keyOf(h), macWord("52:54:00:00:00:0"+name), ekWord("ek-"+name))
	}
	hello := v1alpha1.Hello{Mode: v1alpha1.OSMode, MACs: []string{"52:54:00:00:00:0a"}}
	for range 20 { // the strongest evidence names the host that is told, every time
		c := m.Identify(hello, "ek-b")
		if c.Host.Name != "b" || c.Refuse == nil || c.Refuse.Reason != "IdentityConflict" || !strings.Contains(c.Refuse.Message, "default/a") {
			t.Fatalf("got %+v, refused %+v", c.Host, c.Refuse)
		}
	}
	if c := m.Identify(hello, "ek-a"); c.Host.Name != "a" || c.Refuse == nil || c.Refuse.Reason != "NotOrdered" {
		t.Errorf("one host, nothing ordered: got %+v, refused %+v", c.Host, c.Refuse)
	}
	if c := m.Identify(v1alpha1.Hello{MACs: []string{"52:54:00:00:00:0c"}}, ""); c.Known {
		t.Errorf("a stranger is taken for %+v", c.Host)
	}
}

func TestImageThatIsNoLongerDeployedIsNotAdmitted(t *testing.T) {
	m := &Mind{now: time.Now}
	v := View{Host: &metal3.BareMetalHost{}, Progress: &v1alpha1.HostProgress{}, Inventory: &v1alpha1.HostInventory{}}
	v.Progress.Status.Boot = &v1alpha1.BootOrder{Answer: bootImage, Digest: "d"}
	if refuse := m.admit(v, v1alpha1.Hello{Mode: v1alpha1.OSMode}); refuse == nil || !strings.Contains(refuse.Message, "no longer deployed") {
		t.Errorf("got %+v", refuse)
	}
}
