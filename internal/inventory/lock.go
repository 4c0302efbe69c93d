// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A second opener tries for so long: a daemon that is being restarted may still be closing.
const (
	lockWait  = 1500 * time.Millisecond
	lockRetry = 50 * time.Millisecond
)

// lock is a file that its holder has locked and written its process id into. The kernel lets go of it when the holder dies,
// however it dies; the file stays.
type lock struct{ file *os.File }

func acquire(path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockRetry) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if time.Now().After(end) {
			f.Close()
			return nil, fmt.Errorf("%w by process %s", ErrHeld, holder(path))
		}
	}
	l := &lock{file: f}
	if err := f.Truncate(0); err != nil {
		l.release()
		return nil, fmt.Errorf("writing the lock: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		l.release()
		return nil, fmt.Errorf("writing the lock: %w", err)
	}
	return l, nil
}

func holder(path string) string {
	text, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return "(unknown)"
	}
	return pid
}

// release closes the file, which unlocks it.
func (l *lock) release() { l.file.Close() }
