// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"metald.io/metald/api/v1alpha1"
)

// Daemon is the agents' endpoint of metald. An answer that is not 200 is a *RefusedError.
type Daemon interface {
	Hello(ctx context.Context, hello v1alpha1.Hello) (v1alpha1.Challenge, error)
	Prove(ctx context.Context, proof v1alpha1.Proof) (v1alpha1.Session, error)
	// Next waits up to 30 seconds for an order.
	Next(ctx context.Context, token string, message v1alpha1.Message) (v1alpha1.Order, error)
	Report(ctx context.Context, token string, report v1alpha1.Report) error
	Done(ctx context.Context, token string, done v1alpha1.Done) error
}

// Machine is the host as far as orders go.
type Machine interface {
	// Hello is what the machine says of itself; Run fills in the mode, the version and the TPM.
	Hello() v1alpha1.Hello
	// TPM opens the machine's TPM; nil where it has none.
	TPM() (TPM, error)
	// Facts is an inspection. What could not be read is named in its Problems.
	Facts(ctx context.Context) *v1alpha1.HostFacts
	// Join makes the machine a Node, and returns when its kubelet runs.
	Join(ctx context.Context, seed v1alpha1.JoinSeed) error
	// PowerOff switches the machine off, and does not return where it can.
	PowerOff() error
	Disks
}

// Disks is what is done to a machine's disks, from the ramdisk alone. Both may take hours, say how far they are as often
// as they like, and end early only with ctx.
type Disks interface {
	// Install writes what the plan says, verifies it, and only then makes it bootable. alreadyThere says that the disk held
	// it all before, and nothing was written.
	Install(ctx context.Context, plan v1alpha1.InstallPlan, progress func(v1alpha1.StepProgress)) (alreadyThere bool, err error)
	// Erase erases the drives of the plan, and has a record for every drive, also where it errs.
	Erase(ctx context.Context, plan v1alpha1.ErasePlan, progress func(v1alpha1.StepProgress)) ([]v1alpha1.DriveErasure, error)
}

// TPM proves that the machine is the one that has it.
type TPM interface {
	// Keys makes the endorsement key and an attestation key, and shows their public areas.
	Keys() (v1alpha1.TPMKeys, error)
	// Activate opens a credential that was made for the Keys.
	Activate(challenge v1alpha1.Challenge) ([]byte, error)
	Close() error
}

// RefusedError is the daemon's no.
type RefusedError struct {
	// Status is the HTTP status.
	Status int
	v1alpha1.AgentError
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%s: %s", e.Reason, e.Message) }

// stale says whether an error means that the session is over and a new hello is due.
func stale(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusConflict)
}

// final says whether sending the same again would get the same no.
func final(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && refused.Status/100 == 4 && refused.Status != http.StatusTooManyRequests &&
		refused.Status != http.StatusRequestTimeout
}
