// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"metald.io/metald/test/lab/rack"
)

// A machine is off and its BMC says On. Metald believes the cluster that the Node is away, says so, and neither switches nor
// writes anything on a guess; when the BMC comes back to the truth, the host comes back by itself.
func TestBMCSaysOnOfMachineThatIsOff(t *testing.T) {
	followHost(t, redfishHost, func(h rack.Host) bool { return h.Ready() })
	truth, err := lab.Lie(redfishHost, "On")
	if err != nil {
		t.Fatal(err)
	}
	defer truth()
	commands, writes := bmcCommands(t, redfishHost), imageWrites(t, redfishHost)
	if err := lab.Cut(redfishHost); err != nil {
		t.Fatal(err)
	}
	followHost(t, redfishHost, func(h rack.Host) bool { return !h.Ready() }) // after the cluster's grace period
	time.Sleep(15 * time.Second)
	page := metald(t, "status", redfishHost)
	if !strings.Contains(page, "node "+redfishHost) {
		t.Errorf("metald status %s does not say that its Node is away:\n%s", redfishHost, page)
	}
	if now := bmcCommands(t, redfishHost); now != commands {
		t.Errorf("the BMC met %d commands on a guess", now-commands)
	}
	if err := truth(); err != nil {
		t.Fatal(err)
	}
	followHost(t, redfishHost, func(h rack.Host) bool { return h.Ready() })
	if now := imageWrites(t, redfishHost); now != writes {
		t.Errorf("the disk was written %d times", now-writes)
	}
}
