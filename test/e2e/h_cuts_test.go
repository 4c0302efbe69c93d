// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"metald.io/metald/test/lab/rack"
)

var cuts = flag.Int("cuts", 3, "how often TestPowerCuts pulls a machine's plug while its image is written")

// A machine loses power at random points of an image write, again and again. Each time its disk is either the verified
// image or nothing that firmware would boot; and when power stays, it becomes a Node.
//
// Its BMC says On all the time, so that metald does not count the cuts and the machine comes back within the same order, as
// after a short loss of power in the room.
func TestPowerCuts(t *testing.T) {
	followHost(t, redfishHost, func(h rack.Host) bool { return h.Ready() })
	seed := seed(t)
	random := rand.New(rand.NewPCG(seed, 2))
	t.Logf("E2E_SEED=%d: %d cuts", seed, *cuts)
	metald(t, "host", "reinstall", redfishHost, "--yes", "--reason", "e2e: cutting its power")
	first := followHost(t, redfishHost, writing)
	truth, err := lab.Lie(redfishHost, "On")
	if err != nil {
		t.Fatal(err)
	}
	defer truth()
	length := cmp.Or(writeTook, lab.Scale(10*time.Second))
	for n := range *cuts {
		if n > 0 {
			// The last boot's progress stays until this one's agent speaks.
			begun := imageWrites(t, redfishHost)
			followHost(t, redfishHost, func(h rack.Host) bool { return imageWrites(t, redfishHost) > begun && writing(h) })
		}
		// A write that is quicker than the last one was is over sooner, and metald then switches the machine off itself.
		after := time.Duration(random.Int64N(int64(length * 6 / 10)))
		time.Sleep(after)
		if _, on := lab.Running(redfishHost + ".qemu"); !on {
			t.Logf("cut %d came too late: the write was over", n+1)
			break
		}
		if err := lab.Cut(redfishHost); err != nil {
			t.Fatal(err)
		}
		verdict, err := lab.JudgeDisk(t.Context(), redfishHost)
		if err != nil {
			t.Errorf("cut %d: %v", n+1, err)
		}
		t.Logf("cut %d, %s after its writing was seen: %s", n+1, after.Round(time.Millisecond), verdict)
		if err := lab.Button(t.Context(), redfishHost, "netboot"); err != nil {
			t.Fatal(err)
		}
		if err := lab.Button(t.Context(), redfishHost, "on"); err != nil {
			t.Fatal(err)
		}
	}
	if err := truth(); err != nil {
		t.Fatal(err)
	}
	followHost(t, redfishHost, func(h rack.Host) bool { return h.Progress.Epoch > first.Progress.Epoch && h.Ready() })
	if verdict, err := lab.JudgeDisk(t.Context(), redfishHost); err != nil || verdict != rack.HoldsImage {
		t.Errorf("in the end the disk: %s, %v", verdict, err)
	}
}
