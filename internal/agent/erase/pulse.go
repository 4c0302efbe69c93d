// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"sync"
	"time"
)

// patience is how long a drive may say nothing, where nobody asked for more. A disk that retries a bad sector, and a
// controller that is reset, take a minute or two.
const patience = 10 * time.Minute

// Pulse is what a drive says of itself while it is erased: what it does, how far it is, and that it lives.
type Pulse struct {
	mu          sync.Mutex
	doing       string
	done, total int64
	last        time.Time
	patience    time.Duration
}

// Begin says that something else begins, as "overwrite".
func (p *Pulse) Begin(doing string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doing, p.done, p.total, p.last, p.patience = doing, 0, 0, time.Now(), patience
}

// Move says how far it is.
func (p *Pulse) Move(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total, p.last, p.patience = done, total, time.Now(), patience
}

// Wait says that the next word may take this long.
func (p *Pulse) Wait(long time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.patience = time.Now(), long
}

// Silent is how long nothing was said, 0 while that is not too long.
func (p *Pulse) Silent() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if silent := time.Since(p.last); silent > p.patience {
		return silent
	}
	return 0
}

// Now is what was said last.
func (p *Pulse) Now() (doing string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doing, p.done, p.total
}
