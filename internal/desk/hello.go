// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"net"
	"regexp"

	"metald.io/metald/api/v1alpha1"
)

const (
	maxMACs  = 64
	maxField = 256
)

var (
	bootIDForm   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	rootHashForm = regexp.MustCompile(`^([0-9a-f]{64})?$`)
)

// checkHello refuses a hello that no agent of ours says, and brings the rest into one form: MAC addresses in lower case
// with colons. All of it is still only a claim.
func checkHello(in *v1alpha1.Hello) error {
	switch in.Mode {
	case v1alpha1.RamdiskMode, v1alpha1.InitrdMode, v1alpha1.OSMode:
	default:
		return refuse("BadRequest", "there is no mode %q", clip(in.Mode, 64))
	}
	if !bootIDForm.MatchString(in.BootID) {
		return refuse("BadRequest", "bootID %q is not a UUID", clip(in.BootID, 64))
	}
	if !rootHashForm.MatchString(in.RootHash) {
		return refuse("BadRequest", "rootHash %q is not a SHA-256 in hex", clip(in.RootHash, 80))
	}
	if in.Slot != "" && in.Slot != "a" && in.Slot != "b" {
		return refuse("BadRequest", "there is no slot %q", clip(in.Slot, 64))
	}
	if len(in.MACs) == 0 || len(in.MACs) > maxMACs {
		return refuse("BadRequest", "%d MAC addresses are not between 1 and %d", len(in.MACs), maxMACs)
	}
	for i := range in.MACs {
		if err := checkMAC(&in.MACs[i]); err != nil {
			return err
		}
	}
	if in.BootMAC != "" {
		if err := checkMAC(&in.BootMAC); err != nil {
			return err
		}
	}
	in.AgentVersion = clip(in.AgentVersion, maxField)
	in.SystemUUID = clip(in.SystemUUID, maxField)
	in.SerialNumber = clip(in.SerialNumber, maxField)
	return nil
}

func checkMAC(text *string) error {
	mac, err := net.ParseMAC(*text)
	if err != nil || (len(mac) != 6 && len(mac) != 20) { // 20: IP over InfiniBand
		return refuse("BadRequest", "%q is not a MAC address", clip(*text, 64))
	}
	*text = mac.String()
	return nil
}
