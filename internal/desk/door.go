// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

const (
	// pollFor is how long Next may keep an agent waiting.
	pollFor = 30 * time.Second
	// maxFacts bounds an inspection as JSON: HostInventory has to stay well below what one object may weigh.
	maxFacts = 256 << 10
	// maxText bounds what an agent says about a step.
	maxText = 1024
)

// hello hears a machine, finds its host and asks it for proof.
func (d *Desk) hello(r *http.Request, from netip.Addr, in v1alpha1.Hello) (v1alpha1.Challenge, error) {
	if !d.limits.allow(from) {
		return v1alpha1.Challenge{}, refuse(reasonBusy, "too many requests from %s", from)
	}
	if err := checkHello(&in); err != nil {
		return v1alpha1.Challenge{}, err
	}
	host, err := d.registrar.Identify(r.Context(), in, from)
	if err != nil {
		return v1alpha1.Challenge{}, err
	}
	if !host.Known {
		d.lookout.Stranger(in, from)
		return v1alpha1.Challenge{}, refuse("UnknownMachine", "no host has the MAC address %s or the system UUID %s: "+
			"import it, or adopt its Sighting", strings.Join(in.MACs, ", "), in.SystemUUID)
	}
	if err := d.admit(host, in); err != nil {
		return v1alpha1.Challenge{}, d.turnAway(r.Context(), host, in, from, err)
	}
	waiting := pending{hello: in, host: host}
	if in.TPM == nil {
		return v1alpha1.Challenge{ID: d.challenges.put(waiting)}, nil
	}
	sealed, err := makeCredential(*in.TPM)
	if err != nil {
		return v1alpha1.Challenge{}, d.turnAway(r.Context(), host, in, from, refuse("ProofFailed", "%s", err))
	}
	waiting.secret = sealed.secret
	return v1alpha1.Challenge{ID: d.challenges.put(waiting), CredentialBlob: sealed.blob, EncryptedSecret: sealed.seed}, nil
}

// admit says whether the evidence a machine shows could be the host's. Whether it is, the proof tells.
func (d *Desk) admit(host Identified, in v1alpha1.Hello) error {
	switch {
	case host.Refuse != nil:
		return &refusal{*host.Refuse}
	case in.TPM == nil && host.PinnedEK != "":
		return refuse("TPMChanged", "the host's TPM is pinned and this machine shows none: if its board was replaced, "+
			"run `metald host repin`")
	case in.TPM == nil && host.NoTPM == "":
		return refuse("NoTPM", "this machine shows no TPM 2.0: switch it on in the firmware's setup, or exempt the host with "+
			"the annotation %s", v1alpha1.NoTPMAnnotation)
	case in.TPM != nil && host.PinnedEK != "" && digestEK(in.TPM.EK) != host.PinnedEK:
		return refuse("TPMChanged", "this machine's TPM is not the one that is pinned for the host: if its board was "+
			"replaced, run `metald host repin`")
	}
	return nil
}

// turnAway writes a refusal into the host's inventory and hands it on. The session that the host may have is not touched:
// who was turned away need not be the host.
func (d *Desk) turnAway(ctx context.Context, host Identified, in v1alpha1.Hello, from netip.Addr, err error) error {
	var refused *refusal
	if !errors.As(err, &refused) {
		return err
	}
	note := v1alpha1.Refusal{Reason: refused.Reason, Message: clip(refused.Message, maxText), RemoteIP: text(from)}
	if in.TPM != nil {
		note.EKSHA256 = digestEK(in.TPM.EK)
	}
	d.logger.Warn("machine turned away", "host", host.Host.Name, "ip", from, "mac", in.BootMAC, "event", refused.Reason,
		"err", refused.Message)
	if writeErr := d.record.refused(ctx, host.Host, note); writeErr != nil {
		return writeErr
	}
	return err
}

// prove opens a session for who opens the credential.
func (d *Desk) prove(r *http.Request, from netip.Addr, in v1alpha1.Proof) (v1alpha1.Session, error) {
	if !d.limits.allow(from) {
		return v1alpha1.Session{}, refuse(reasonBusy, "too many requests from %s", from)
	}
	asked, right, found := d.challenges.take(in.ChallengeID, in.Secret)
	if !found {
		return v1alpha1.Session{}, refuse("ProofFailed", "this challenge is not known, is older than %s or was answered before",
			challengeLife)
	}
	if !right {
		return v1alpha1.Session{}, d.turnAway(r.Context(), asked.host, asked.hello, from,
			refuse("ProofFailed", "this machine's TPM does not hold the key that it showed"))
	}
	session := Session{
		Host: asked.host.Host, Epoch: asked.host.Epoch, Mode: asked.hello.Mode, BootID: asked.hello.BootID,
		Proof: ProofPosition, RemoteIP: from, RootHash: asked.hello.RootHash, Slot: asked.hello.Slot,
	}
	if asked.hello.TPM != nil {
		session.Proof, session.EKSHA256 = ProofTPM, digestEK(asked.hello.TPM.EK)
	}
	// On disk first: the mind must know of the session before the agent can ask for orders.
	if err := d.record.opened(r.Context(), session, asked.hello.AgentVersion); err != nil {
		return v1alpha1.Session{}, err
	}
	secret, until := d.sessions.open(session)
	d.logger.Info("session opened", "host", session.Host.Name, "ip", from, "mac", asked.hello.BootMAC, "mode", session.Mode,
		"epoch", session.Epoch, "proof", session.Proof)
	return v1alpha1.Session{Token: secret, Host: session.Host, Epoch: session.Epoch, ExpiresAt: metav1.NewTime(until)}, nil
}

// session finds who asks, and fences off who belongs to the past.
func (d *Desk) session(r *http.Request, message v1alpha1.Message) (Session, string, error) {
	secret, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !found {
		return Session{}, "", refuse("NoSession", "the request has no bearer token: say hello first")
	}
	session, found := d.sessions.find(secret)
	if !found {
		return Session{}, "", refuse("NoSession", "this session is not known any more: say hello again")
	}
	if message.HostUID != session.Host.UID || message.Epoch != session.Epoch {
		return Session{}, "", refuse("OldEpoch", "the message is not of this session's host and epoch")
	}
	return session, secret, d.fence(r.Context(), session)
}

// fence refuses a session whose host has gone on to another epoch, and forgets it.
func (d *Desk) fence(ctx context.Context, session Session) error {
	epoch, err := d.registrar.Epoch(ctx, session.Host)
	switch {
	case apierrors.IsNotFound(err):
		d.sessions.drop(session.Host.UID)
		return refuse("NoSession", "the host of this session is gone")
	case err != nil:
		return err
	case epoch != session.Epoch:
		return refuse("OldEpoch", "this session's epoch is over: say hello again")
	}
	return nil
}

// next waits for work. An order that comes up while the epoch changes is not handed out.
func (d *Desk) next(r *http.Request, _ netip.Addr, in v1alpha1.Message) (v1alpha1.Order, error) {
	session, secret, err := d.session(r, in)
	if err != nil {
		return v1alpha1.Order{}, err
	}
	wait := v1alpha1.Order{Message: v1alpha1.Message{HostUID: session.Host.UID, Epoch: session.Epoch, Step: v1alpha1.WaitStep}}
	if session.Mode == v1alpha1.InitrdMode {
		return v1alpha1.Order{}, refuse("BadRequest", "an agent in the initrd gets no orders: it only reports a refusal")
	}
	if err := d.record.seen(r.Context(), session); err != nil {
		return v1alpha1.Order{}, err
	}
	ctx, cancel := d.sessions.poll(r.Context(), secret, pollFor)
	defer cancel()
	order, err := d.orders.Next(ctx, session)
	if err != nil && ctx.Err() != nil {
		order, err = wait, nil
	}
	if err != nil {
		return v1alpha1.Order{}, err
	}
	// Asked again, not remembered: the poll may have waited for long.
	if err := d.fence(r.Context(), session); err != nil {
		return v1alpha1.Order{}, err
	}
	if _, found := d.sessions.find(secret); !found {
		return v1alpha1.Order{}, refuse("NoSession", "another session of this host was opened: say hello again")
	}
	if order.Epoch != session.Epoch || order.HostUID != session.Host.UID {
		return wait, nil // meant for another session of this host
	}
	return order, nil
}

// report stores the facts of an inspection, or how far a long step is.
func (d *Desk) report(r *http.Request, _ netip.Addr, in v1alpha1.Report) (struct{}, error) {
	session, _, err := d.session(r, in.Message)
	if err != nil {
		return struct{}{}, err
	}
	if session.Mode == v1alpha1.InitrdMode {
		return struct{}{}, refuse("BadRequest", "an agent in the initrd has no facts to report")
	}
	switch {
	case in.Facts != nil && in.Progress != nil:
		return struct{}{}, refuse("BadRequest", "the report holds facts and progress: one of them is enough")
	case in.Progress != nil:
		if err := checkProgress(in.Step, in.Progress); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, d.record.progress(r.Context(), session, in.Step, *in.Progress)
	case in.Facts == nil:
		return struct{}{}, refuse("BadRequest", "the report holds no facts and no progress")
	}
	encoded, err := json.Marshal(in.Facts)
	if err != nil {
		return struct{}{}, err
	}
	if len(encoded) > maxFacts {
		return struct{}{}, refuse("BadRequest", "the facts weigh %d bytes, more than %d", len(encoded), maxFacts)
	}
	return struct{}{}, d.record.facts(r.Context(), session, in.Facts)
}

// done stores how a step ended.
func (d *Desk) done(r *http.Request, from netip.Addr, in v1alpha1.Done) (struct{}, error) {
	session, _, err := d.session(r, in.Message)
	if err != nil {
		return struct{}{}, err
	}
	refusing := in.Step == v1alpha1.RefuseStep
	switch {
	case refusing != (session.Mode == v1alpha1.InitrdMode):
		return struct{}{}, refuse("BadRequest", "an agent in mode %s cannot end the step %q", session.Mode, clip(in.Step, 64))
	case refusing && in.OK:
		return struct{}{}, refuse("BadRequest", "a refusal is not ok")
	case !refusing && !steps[in.Step]:
		return struct{}{}, refuse("BadRequest", "there is no step %q", clip(in.Step, 64))
	}
	if err := checkDone(session.Mode, &in); err != nil {
		return struct{}{}, err
	}
	in.Text = clip(in.Text, maxText)
	d.logger.Info("step done", "host", session.Host.Name, "ip", from, "event", in.Step, "epoch", session.Epoch, "ok", in.OK,
		"text", in.Text)
	return struct{}{}, d.record.done(r.Context(), session, in)
}

// steps are those that an order can ask for and a Done can end.
var steps = map[string]bool{
	v1alpha1.InspectStep: true, v1alpha1.InstallStep: true, v1alpha1.EraseStep: true, v1alpha1.JoinStep: true, v1alpha1.PowerOffStep: true,
}

func text(from netip.Addr) string {
	if !from.IsValid() {
		return ""
	}
	return from.String()
}
