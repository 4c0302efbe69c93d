// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"metald.io/metald/internal/bmc/lanplus"
)

const (
	// ipmiIdle is how long a session is believed to live without traffic: BMCs may end one after 60 s (IPMI 2.0, 6.12.15).
	ipmiIdle = 45 * time.Second
	// ipmiGoodbye is how long a BMC may take to end a session.
	ipmiGoodbye = 2 * time.Second
	// ipmiDoubt is how long a session that was fine a moment ago may say nothing before a new one is tried.
	ipmiDoubt = 5 * time.Second
)

// ipmi is a Controller over IPMI 2.0. It keeps one session, and has one command in flight: a BMC has one pair of hands.
type ipmi struct {
	target Target

	lock    chan struct{} // a mutex that obeys a context; it guards the rest
	session *lanplus.Session
	used    time.Time // when the session was last answered
	refused error     // a login that was refused is not repeated on this connection
	closed  bool
	mute    bool // the BMC was seen not to show the valid bit of what it keeps: see bootFlags
}

var _ Controller = (*ipmi)(nil)

func dialIPMI(ctx context.Context, t Target) (*ipmi, error) {
	i := &ipmi{target: t, lock: make(chan struct{}, 1)}
	if err := i.login(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

// renew opens a session in the place of one that is over. The lock is held.
func (i *ipmi) renew(ctx context.Context) error {
	if i.refused != nil {
		return i.refused
	}
	return i.target.again(ctx, i.login)
}

// login opens the session. The lock is held, or nobody else knows of i yet.
func (i *ipmi) login(ctx context.Context) error {
	dial := i.target.Dialer
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "udp", i.target.Address.Authority())
	if err != nil {
		return network(ctx, err)
	}
	s, err := lanplus.Open(ctx, conn, i.target.Username, i.target.Password.Reveal())
	if err != nil {
		_ = conn.Close()
		if err = ipmiError(ctx, err); errors.Is(err, ErrCredentials) {
			i.refused = err
		}
		return err
	}
	i.session, i.used = s, time.Now()
	return nil
}

// take waits for the lock, as long as ctx allows.
func (i *ipmi) take(ctx context.Context) error {
	select {
	case i.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return network(ctx, ctx.Err())
	}
}

// with runs f with the lock and a session. A panic in the library that decodes what a BMC sent is that BMC's error.
func (i *ipmi) with(ctx context.Context, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decoding the BMC's answer: %v", r)
		}
	}()
	if err := i.take(ctx); err != nil {
		return err
	}
	defer func() { <-i.lock }()
	if i.closed {
		return ErrClosed
	}
	if i.session != nil && time.Since(i.used) > ipmiIdle {
		i.abandon()
	}
	if i.session == nil {
		if err := i.renew(ctx); err != nil {
			return err
		}
	}
	return f()
}

// abandon ends a session that the BMC may have forgotten.
func (i *ipmi) abandon() {
	i.session.Abandon()
	i.session = nil
}

// do sends one command in the session. A BMC that restarted has forgotten the session, and says nothing: then it is opened once
// more, with what is left of ctx's time, and the command repeated.
func (i *ipmi) do(ctx context.Context, req types.Request, res types.Response) error {
	short, cancel := context.WithTimeout(ctx, ipmiDoubt)
	err := i.session.Do(short, req, res, false)
	cancel()
	if errors.Is(err, lanplus.ErrSilent) && ctx.Err() == nil {
		i.abandon()
		if err := i.renew(ctx); err != nil {
			return err
		}
		err = i.session.Do(ctx, req, res, false)
	}
	return i.told(ctx, err)
}

// once sends a command that must not be done twice: it is neither repeated nor sent in a session that was not just used.
func (i *ipmi) once(ctx context.Context, req types.Request, res types.Response) error {
	return i.told(ctx, i.session.Do(ctx, req, res, true))
}

// told notes that the BMC answered, if it did.
func (i *ipmi) told(ctx context.Context, err error) error {
	if err == nil || completed(err) != 0 {
		i.used = time.Now()
	}
	return ipmiError(ctx, err)
}

// Close ends the session.
func (i *ipmi) Close(ctx context.Context) error {
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := i.take(wait); err != nil {
		return fmt.Errorf("closing the session on %s: %w", i.target.Address, err)
	}
	defer func() { <-i.lock }()
	if i.closed {
		return nil
	}
	i.closed = true
	if i.session == nil {
		return nil
	}
	bye, done := context.WithTimeout(context.WithoutCancel(ctx), ipmiGoodbye)
	defer done()
	if err := i.session.Close(bye); err != nil {
		return fmt.Errorf("closing the session on %s: %w", i.target.Address, ipmiError(bye, err))
	}
	return nil
}

// ipmiError says what an error of a session means in this room.
func ipmiError(ctx context.Context, err error) error {
	var code *lanplus.CompletionError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lanplus.ErrRefused):
		return fmt.Errorf("%w: %w", ErrCredentials, err)
	case errors.Is(err, lanplus.ErrSuite):
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	case errors.Is(err, lanplus.ErrFull):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, lanplus.ErrSilent):
		return network(ctx, err)
	case errors.As(err, &code):
		switch types.CompletionCode(code.Code) {
		case types.CodeNodeBusy, types.CodeProcessTimeout, types.CodeOutOfSpace, types.CodeCannotProvideResponseSDRRInUpdate,
			types.CodeCannotProvideResponseFirmwareUpdate, types.CodeCannotProvideResponseBMCInitialize:
			return fmt.Errorf("%w: %w", ErrBusy, err)
		case types.CodeInvalidCommand, types.CodeInvalidCommandForLUN, types.CodeParameterNotSupported, types.CodeParameterOutOfRange,
			types.CodeRequestDataFieldInvalid, types.CodeIllegalCommand, types.CodeSubFnDisabled:
			return fmt.Errorf("%w: %w", ErrNotSupported, err)
		case types.CodeInsufficientPrivilege:
			return fmt.Errorf("%w: %w", ErrCredentials, err)
		}
	}
	return err
}

// completed is the completion code that an error holds; 0 for any other error.
func completed(err error) uint8 {
	var code *lanplus.CompletionError
	if errors.As(err, &code) {
		return code.Code
	}
	return 0
}
