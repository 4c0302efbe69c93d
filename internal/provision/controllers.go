// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
)

// bmcTimeout bounds one conversation with a BMC. Healthy ones answer in seconds; slow ones were seen to need twenty.
const bmcTimeout = 30 * time.Second

// controllers keeps one session per BMC between steps. A host is worked on by one worker at a time, so a session is too.
type controllers struct {
	mu   sync.Mutex
	open map[string]*session
}

type session struct {
	bmc.Controller
	target bmc.Target
	// noted is the session on the BMC as it is on disk.
	noted string
	power bmc.PowerState
	read  time.Time
}

// serves answers whether the session still is the one that target asks for.
func (s *session) serves(t bmc.Target) bool {
	return s.target.Address == t.Address && s.target.Username == t.Username && s.target.Password == t.Password && s.target.Pin == t.Pin
}

func newControllers() *controllers { return &controllers{open: map[string]*session{}} }

func (c *controllers) get(key string) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[key]
}

func (c *controllers) put(key string, s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[key] = s
}

// drop ends a host's session, also where the BMC no longer answers.
func (c *controllers) drop(key string) {
	c.mu.Lock()
	s := c.open[key]
	delete(c.open, key)
	c.mu.Unlock()
	if s != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Close(ctx) // the BMC forgets an idle session by itself
	}
}

func (c *controllers) close() {
	c.mu.Lock()
	var keys []string
	for k := range c.open {
		keys = append(keys, k)
	}
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Go(func() { c.drop(k) })
	}
	wg.Wait()
}

// errRefused says that a login was refused and is not tried again with the same Secret.
var errRefused = errors.New("the BMC refused these credentials")

// secret answers the host's credentials.
func (s *step) secret(ctx context.Context) (*corev1.Secret, error) {
	name := s.Host.Spec.BMC.CredentialsName
	if name == "" {
		return nil, errors.New("spec.bmc.credentialsName is empty")
	}
	secret, err := s.Store.Secrets().Newest(ctx, s.Host.Namespace, name) // shared: read only
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("secret %s/%s does not exist", s.Host.Namespace, name)
	}
	if err != nil {
		return nil, err
	}
	if len(secret.Data["username"]) == 0 || len(secret.Data["password"]) == 0 {
		return nil, fmt.Errorf("secret %s/%s lacks username or password", s.Host.Namespace, name)
	}
	return secret, nil
}

// refused answers whether this very version of the credentials was turned away before.
func (s *step) refused(secret *corev1.Secret) bool {
	return s.Host.Status.TriedCredentials.Match(*secret) && !s.Host.Status.GoodCredentials.Match(*secret)
}

// credentialsChanged answers whether a wait for better credentials is over.
func (s *step) credentialsChanged(ctx context.Context) bool {
	if s.Host.Status.ErrorType != metal3.RegistrationError {
		return false
	}
	if s.Host.Status.TriedCredentials.Reference == nil {
		return false // none was ever sent: it is not the credentials that fail
	}
	secret, err := s.secret(ctx)
	return err == nil && !s.Host.Status.TriedCredentials.Match(*secret)
}

// controller answers a session with the host's BMC, kept from an earlier step where it still fits.
func (s *step) controller(ctx context.Context) (*session, error) {
	address, err := bmc.ParseAddress(s.Host.Spec.BMC.Address)
	if err != nil {
		return nil, err
	}
	secret, err := s.secret(ctx)
	if err != nil {
		return nil, err
	}
	if s.refused(secret) {
		return nil, errRefused
	}
	if err := s.pin(ctx, address); err != nil {
		return nil, err
	}
	target := bmc.Target{
		Address:  address,
		Username: string(secret.Data["username"]),
		Password: bmc.Secret(secret.Data["password"]),
		Pin:      s.identity().BMCCertificateSHA256,
	}
	if kept := s.bmcs.get(s.key); kept != nil {
		if kept.serves(target) {
			s.noteSession(ctx, kept)
			return kept, nil
		}
		s.bmcs.drop(s.key)
	}
	target.Stale = s.staleSession(ctx)
	c, err := s.dial(ctx, target)
	if errors.Is(err, bmc.ErrCredentials) {
		s.noteCredentials(secret, false)
	}
	if err != nil {
		return nil, err
	}
	s.noteCredentials(secret, true)
	kept := &session{Controller: c, target: target, noted: target.Stale}
	s.noteSession(ctx, kept)
	s.bmcs.put(s.key, kept)
	return kept, nil
}

// sessionBucket holds the session that is open on each host's BMC: who is killed cannot end it, who comes after can.
const sessionBucket = "bmc-sessions"

func (s *step) staleSession(ctx context.Context) string {
	name, err := s.Store.Records(sessionBucket).Get(ctx, s.key)
	if err != nil {
		s.log.Warn("reading the session left on a BMC", "host", s.key, "err", err)
	}
	return string(name)
}

// noteSession keeps the record true; a login in the midst of work changes the session.
func (s *step) noteSession(ctx context.Context, kept *session) {
	named, ok := kept.Controller.(bmc.Sessioner)
	if !ok || named.Session() == kept.noted {
		return
	}
	name := named.Session()
	if err := s.Store.Records(sessionBucket).Put(context.WithoutCancel(ctx), s.key, []byte(name)); err != nil {
		s.log.Warn("noting the session on a BMC", "host", s.key, "err", err)
		return
	}
	kept.noted = name
}

// noteCredentials remembers in the host's status which version of the Secret works; record writes it.
func (s *step) noteCredentials(secret *corev1.Secret, good bool) {
	tried := metal3.CredentialsStatus{
		Reference: &corev1.SecretReference{Namespace: secret.Namespace, Name: secret.Name},
		Version:   secret.ResourceVersion,
	}
	s.Host.Status.TriedCredentials = tried
	s.Host.Status.GoodCredentials = metal3.CredentialsStatus{}
	if good {
		s.Host.Status.GoodCredentials = tried
	}
}

// powered reads the machine's power, at most age old.
func (s *step) powered(ctx context.Context, c *session, age time.Duration) (bmc.PowerState, error) {
	if c.power != "" && s.now().Sub(c.read) < age {
		return c.power, nil
	}
	p, err := c.Power(ctx)
	if err != nil {
		return bmc.PowerUnknown, err
	}
	c.power, c.read = p, s.now()
	s.notePower(ctx, p)
	return p, nil
}

// notePower keeps the BMC's part of the inventory true, and writes only what changed.
func (s *step) notePower(ctx context.Context, p bmc.PowerState) {
	s.Host.Status.PoweredOn = p == bmc.On
	s.noteBMC(ctx, func(f *v1alpha1.BMCFacts) { f.Power, f.Error = string(p), "" })
}

// seenEvery is how old the time of the BMC's last answer may grow on disk; it is no counter.
const seenEvery = 5 * time.Minute

func (s *step) noteBMC(ctx context.Context, change func(*v1alpha1.BMCFacts)) {
	note := func(before v1alpha1.BMCFacts) v1alpha1.BMCFacts {
		f := before
		change(&f)
		old := before.Seen == nil || s.now().Sub(before.Seen.Time) > seenEvery
		if f.Error == "" && (old || f != before) {
			now := metav1.NewTime(s.now())
			f.Seen = &now
		}
		return f
	}
	if known := s.Inventory.Status.BMC; known != nil && note(*known) == *known {
		return // nobody but the host's own steps writes these facts: they are stored like this
	}
	ctx = context.WithoutCancel(ctx) // a BMC that hangs has used up the time of its conversation
	changed, err := s.Store.Inventories().Update(ctx, s.Host.Namespace, s.Host.Name, func(i *v1alpha1.HostInventory) error {
		if i.Status.BMC == nil {
			i.Status.BMC = &v1alpha1.BMCFacts{}
		}
		*i.Status.BMC = note(*i.Status.BMC)
		return nil
	})
	if err != nil {
		s.log.Error("writing the BMC's facts", "host", s.key, "err", err)
		return
	}
	s.Inventory = changed
}

// bmcTrouble turns an error of a conversation with a BMC into an outcome.
func (s *step) bmcTrouble(ctx context.Context, kind metal3.ErrorType, err error) outcome {
	if stoppedNow(err) {
		return s.pause(s.stopped.by) // the BMC is well
	}
	s.noteBMC(ctx, func(f *v1alpha1.BMCFacts) { f.Error = err.Error() })
	var changed *bmc.PinChangedError
	switch {
	case errors.As(err, &changed):
		s.bmcs.drop(s.key)
		s.noteBMC(ctx, func(f *v1alpha1.BMCFacts) { f.CertificateSHA256 = changed.Shown })
		return stuck(kind, "BMCCertificateChanged",
			fmt.Errorf("the BMC shows certificate %.16s…, pinned is %.16s…; no credential was sent", changed.Shown, changed.Pinned),
			fmt.Sprintf("if the BMC or its certificate was replaced on purpose: metald host repin %s --certificate %s --reason TEXT", s.Host.Name, changed.Shown))
	case errors.Is(err, errRefused), errors.Is(err, bmc.ErrCredentials):
		return stuck(metal3.RegistrationError, "BMCCredentialsRefused",
			fmt.Errorf("the BMC refused the credentials of secret %s; they are not tried again", s.Host.Spec.BMC.CredentialsName),
			fmt.Sprintf("correct username and password in secret %s/%s", s.Host.Namespace, s.Host.Spec.BMC.CredentialsName))
	default:
		s.bmcs.drop(s.key)
		return failed(kind, err)
	}
}
