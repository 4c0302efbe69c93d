// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// logins takes what `metald kubeconfig --user` has signed into the record. That command works beside the daemon, which holds
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
	ctx = inventory.WithActor(ctx, audit.Actor{User: "unknown", Via: audit.ViaOffline}, "")
	if size < noted {
		problem := fmt.Sprintf("the list of logins has %d bytes and had %d: somebody has cut it", size, noted)
		if _, err := l.store.Record(ctx, "", audit.Act{Verb: "sign login", Phase: audit.Failed, Error: problem}); err != nil {
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
		if _, err := l.store.Record(ctx, "", signed(line)); err != nil {
			return err
		}
		noted += int64(len(line))
		if err := l.setNoted(ctx, noted); err != nil {
			return err
		}
	}
	return nil
}

// signed is what a line of the list says.
func signed(line []byte) audit.Act {
	act := audit.Act{Verb: "sign login", Phase: audit.Done}
	var i Issued
	if err := json.Unmarshal(line, &i); err != nil {
		act.Phase, act.Error = audit.Failed, fmt.Sprintf("a line of the list of logins cannot be read: %v", err)
		return act
	}
	groups := "none"
	if len(i.Groups) > 0 {
		groups = strings.Join(i.Groups, ", ")
	}
	act.Detail = fmt.Sprintf("user %s, groups %s, from %s until %s, serial %s", i.User, groups, i.Signed.UTC().Format(time.RFC3339),
		i.NotAfter.UTC().Format(time.RFC3339), i.Serial)
	return act
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
