// SPDX-License-Identifier: Apache-2.0

package bmc

import "context"

// Controller is an open connection to one BMC. It may be used from many goroutines; it keeps at most two requests in
// flight and one session, and must be closed.
type Controller interface {
	Identifier
	PowerSwitch
	BootSetter
	// Close ends the session on the BMC. It works for a few seconds after ctx has ended too: a session that is left behind
	// fills the BMC's session table. Closing twice is no error.
	Close(ctx context.Context) error
}

// Identifier says who the machine is.
type Identifier interface {
	Identity(ctx context.Context) (Identity, error)
}

// PowerSwitch reads and switches power.
type PowerSwitch interface {
	Power(ctx context.Context) (PowerState, error)
	// Switch asks for a change and returns when the BMC has accepted it: read Power until it is there. Nothing is sent where
	// the machine is already as asked. GracefulOff gives ErrNotSupported where the BMC offers no such reset.
	Switch(ctx context.Context, action PowerAction) error
}

// BootSetter sets what the next boot does, once.
type BootSetter interface {
	// SetOneTimeBoot sets the override and reads it back: an error that is ErrNotKept means that the BMC lied. Do not boot then.
	SetOneTimeBoot(ctx context.Context, target BootTarget) error
	OneTimeBoot(ctx context.Context) (BootTarget, error)
	// NetworkBoot says how this machine boots from the network best: BootHTTP, or BootPXE where its BMC does not offer that.
	NetworkBoot(ctx context.Context) (BootTarget, error)
}

// Inventorier is an optional ability of a Controller: to list the parts of the machine. It costs dozens of requests.
type Inventorier interface {
	Inventory(ctx context.Context) (Inventory, error)
}

// Sessioner is an optional ability of a Controller: to name its session on the BMC, for Target.Stale of a later one. The name
// is no secret.
type Sessioner interface {
	Session() string
}

// Identity is who the machine says it is. Fields are empty where the BMC does not know, or shows a placeholder.
type Identity struct {
	Manufacturer string
	Model        string
	SerialNumber string
	// SystemUUID is ComputerSystem.UUID, in lower case.
	SystemUUID  string
	BIOSVersion string
	BMCVersion  string
	// MACs are those of the system's Ethernet interfaces, in lower case with colons, in the BMC's order. Many BMCs show none.
	MACs []string
}

// PowerState is Redfish's PowerState.
type PowerState string

// What else Redfish knows (Paused), or a BMC invents, is PowerUnknown.
const (
	On           PowerState = "On"
	Off          PowerState = "Off"
	PoweringOn   PowerState = "PoweringOn"
	PoweringOff  PowerState = "PoweringOff"
	PowerUnknown PowerState = "Unknown"
)

// PowerAction is what can be done to a machine's power.
type PowerAction string

const (
	// PowerOn switches on.
	PowerOn PowerAction = "On"
	// ForceOff takes the power away at once.
	ForceOff PowerAction = "ForceOff"
	// GracefulOff asks the operating system to go down; whether it obeys is seen in Power.
	GracefulOff PowerAction = "GracefulOff"
	// ForceRestart restarts at once; a machine that is off is switched on.
	ForceRestart PowerAction = "ForceRestart"
)

// BootTarget is what a one-time override boots.
type BootTarget string

const (
	// BootNone is no override: the machine boots as its firmware is configured.
	BootNone BootTarget = "None"
	// BootHTTP is UEFI HTTP boot (Redfish UefiHttp).
	BootHTTP BootTarget = "HTTP"
	// BootPXE is network boot by PXE (Redfish Pxe).
	BootPXE BootTarget = "PXE"
	// BootDisk is the first disk in the firmware's order (Redfish Hdd, IPMI's default hard drive).
	BootDisk BootTarget = "Disk"
	// BootOther is any override that is none of these; it is only read, never set.
	BootOther BootTarget = "Other"
)
