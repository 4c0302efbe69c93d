// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"strings"
	"time"

	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// logins takes what `metald kubeconfig --user` has signed, and what `rotate-ca` has done, into the record. That command works beside the daemon, which holds
// the inventory, or without one; so it writes a list, and the daemon reads on in it. Where a backup was restored, what the record
// has forgotten is told again.
type logins struct {
	path  string // of the list
	store *inventory.Store
	log   *slog.Logger
}

const (
	loginsBucket = "logins"
	loginsNoted  = "noted" // how many bytes of the list are in the record, 8 bytes big endian
	loginsEvery  = 10 * time.Second
)

// keep reads on until ctx ends. What fails is tried again, and told once. The list is made here, so that it is the daemon's to
// read also where root writes to it first.
func (l *logins) keep(ctx context.Context) error {
	if f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		_ = f.Close()
	}
	tick := time.NewTicker(loginsEvery)
	defer tick.Stop()
	told := ""
	for {
		err := l.note(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			l.log.Warn("logins that were signed are not in the record yet", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// note records each whole line that is new. One that is recorded while the daemon dies may be recorded twice: its serial tells.
func (l *logins) note(ctx context.Context) error {
	noted, err := l.noted(ctx)
	if err != nil {
		return err
	}
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) && noted == 0 {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the list of logins: %w", err)
	}
	var size int64
	if f != nil {
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("reading the list of logins: %w", err)
		}
		size = info.Size()
	}
	offline := func(user string) context.Context {
		return inventory.WithActor(ctx, audit.Actor{User: user, Via: audit.ViaOffline}, "")
	}
	if size < noted {
		problem := fmt.Sprintf("the list of logins has %d bytes and had %d: somebody has cut it", size, noted)
		if _, err := l.store.Record(offline(nobody), "", audit.Act{Verb: "sign login", Phase: audit.Failed, Error: problem}); err != nil {
			return err
		}
		l.log.Error("a list was cut", "file", l.path, "err", problem)
		return l.setNoted(ctx, size)
	}
	if size == noted {
		return nil
	}
	text, err := io.ReadAll(io.NewSectionReader(f, noted, size-noted))
	if err != nil {
		return fmt.Errorf("reading the list of logins: %w", err)
	}
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		who, act := listed(line)
		if _, err := l.store.Record(offline(who), "", act); err != nil {
			return err
		}
		noted += int64(len(line))
		if err := l.setNoted(ctx, noted); err != nil {
			return err
		}
	}
	return nil
}

// nobody is the actor where the list does not say who it was.
const nobody = "unknown"

// person is who runs this program, behind sudo as well.
func person() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return nobody
}

// listed is what a line of the list says.
func listed(line []byte) (who string, act audit.Act) {
	act = audit.Act{Verb: "sign login", Phase: audit.Done}
	var l struct {
		Issued
		Authority, Step string // of a rotated
		At              time.Time
	}
	if err := json.Unmarshal(line, &l); err != nil {
		act.Phase, act.Error = audit.Failed, fmt.Sprintf("a line of the list of logins cannot be read: %v", err)
		return nobody, act
	}
	who = cmp.Or(l.By, nobody)
	if l.Authority != "" {
		act.Verb, act.Target = "replace CA", l.Authority
		act.Detail = fmt.Sprintf("%s, %s", l.Step, l.At.UTC().Format(time.RFC3339))
		return who, act
	}
	groups := "none"
	if len(l.Groups) > 0 {
		groups = strings.Join(l.Groups, ", ")
	}
	act.Detail = fmt.Sprintf("user %s, groups %s, from %s until %s, serial %s", l.User, groups, l.Signed.UTC().Format(time.RFC3339),
		l.NotAfter.UTC().Format(time.RFC3339), l.Serial)
	return who, act
}

func (l *logins) noted(ctx context.Context) (int64, error) {
	value, err := l.store.Records(loginsBucket).Get(ctx, loginsNoted)
	if err != nil || len(value) != 8 {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(value)), nil
}

func (l *logins) setNoted(ctx context.Context, n int64) error {
	return l.store.Records(loginsBucket).Put(ctx, loginsNoted, binary.BigEndian.AppendUint64(nil, uint64(n)))
}
