// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The file's buckets. The records' bucket holds one nested bucket for each name given to Records.
var (
	metaBucket    = []byte("meta")
	keysBucket    = []byte("keys")
	leasesBucket  = []byte("leases")    // id -> lease
	attachments   = []byte("leasekeys") // id and key -> nothing
	recordsBucket = []byte("records")
	logBucket     = []byte("log") // sequence number -> hash and payload

	schemaKey   = []byte("schema")
	revisionKey = []byte("revision")
	logHeadKey  = []byte("loghead") // number and hash of the newest entry
	logBaseKey  = []byte("logbase") // those of the newest entry that was trimmed away
	tallyKey    = []byte("tally")
)

// mmapSize is how much address space the file gets at once. Within it the file grows without waiting for readers to
// finish. It is address space, not memory.
const mmapSize = 256 << 20

var (
	// ErrClosed is the answer of an engine that was closed or has met an I/O error.
	ErrClosed = errors.New("inventory is closed")
	// ErrFull is the answer to a write that found no room on the disk. Nothing was changed; reads go on, and so do writes
	// as soon as there is room.
	ErrFull = errors.New("no space left for the inventory")
	// ErrNewerSchema is wrapped by Open's error for a file that a newer version has written.
	ErrNewerSchema = errors.New("file was written by a newer version")
	// ErrCorrupt is wrapped by the error for something in the file that is not what was written.
	ErrCorrupt = errors.New("inventory is damaged")
)

// Options are Open's.
type Options struct {
	Logger *slog.Logger
	// Now gives the times that are stored. Deadlines within a run use the monotonic clock.
	Now func() time.Time
	// NoSync skips fsync: for tests only.
	NoSync bool
	// History bounds the events kept in memory, in bytes; 0 is 16 MiB.
	History int
	// ProgressInterval is how often an idle watch that asked for it is told the current revision; 0 is 5 seconds.
	ProgressInterval time.Duration
	// OpenFile opens the file; nil is os.OpenFile. Tests put a file here whose descriptor they spoil.
	OpenFile func(string, int, os.FileMode) (*os.File, error)
	// Note is called for each request that changed keys, with its context and its own events, in the order of their
	// revisions; what it returns is appended to the log in the same commit, if it is not nil. It runs while all writes wait
	// for it and must not call the engine. If it panics, nothing of that request is kept and the caller gets an error.
	Note func(ctx context.Context, events []*mvccpb.Event) []byte
}

// Engine is an open file. Its methods may be called from any goroutine.
type Engine struct {
	db     *bbolt.DB
	logger *slog.Logger
	now    func() time.Time
	noter  func(context.Context, []*mvccpb.Event) []byte

	client           *clientv3.Client
	progressInterval time.Duration

	queue  chan *request
	stop   chan struct{} // closed by Close, and by an I/O error
	dead   chan struct{} // closed when the committer has ended
	broken error         // the committer's alone: why it takes no more
	once   sync.Once
	fatal  chan error
	wg     sync.WaitGroup // the committer, the reaper and the fan
	leases *leaseTable
	fan    fan

	mu      sync.RWMutex  // guards what follows
	rev     int64         // the newest published revision
	head    chain         // the newest published entry of the log
	past    history       // the events up to rev
	changed chan struct{} // closed and replaced when rev moves or progress is asked for
	asked   int64         // how often progress was asked for
}

// Open opens or makes the file at path. The caller keeps other processes away from it.
func Open(path string, o Options) (*Engine, error) {
	if o.History == 0 {
		o.History = 16 << 20
	}
	if o.ProgressInterval == 0 {
		o.ProgressInterval = 5 * time.Second
	}
	if err := inspect(path, o.Logger); err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second,
		NoSync:  o.NoSync,
		// The list of free pages is rebuilt at start (milliseconds at our size) instead of written at each commit.
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mmapSize,
		OpenFile:        o.OpenFile,
	})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	e := &Engine{
		db:               db,
		logger:           o.Logger,
		now:              o.Now,
		noter:            o.Note,
		progressInterval: o.ProgressInterval,
		queue:            make(chan *request, maxBatch),
		stop:             make(chan struct{}),
		dead:             make(chan struct{}),
		fatal:            make(chan error, 1),
		changed:          make(chan struct{}),
	}
	if err := e.load(); err != nil {
		db.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	e.past = history{compacted: e.rev, limit: o.History}
	e.client = e.newClient()
	e.fan = fan{inStep: map[*follow]struct{}{}, sent: e.rev}
	e.wg.Add(3)
	go e.commitLoop()
	go e.reapLoop()
	go e.fanLoop()
	return e, nil
}

// inspect walks the file before bbolt does, which trusts it. Rows that are damaged are told of, and not served later;
// where rows are missing or older than they should be, nobody can say which, and nothing is served.
func inspect(path string, logger *slog.Logger) error {
	report, err := verify(path)
	if errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("%w; restore a backup", err)
	}
	if err != nil || report.schema != schemaVersion {
		return err // other schemas have no sums, or others
	}
	if report.oneRoot {
		logger.Warn("inventory opened by one of its two roots: the last commit was cut, or the disk damaged the other")
	}
	for _, err := range report.damaged {
		logger.Error("inventory has a damaged row, which is not served", "err", err)
	}
	stored, err := unseal(metaBucket, tallyKey, report.stored)
	if err != nil {
		return err
	}
	if !bytes.Equal(stored, report.tally.bytes()) {
		return fmt.Errorf("%w: its %d rows are not those that were written last, some are lost or old; restore a backup",
			ErrCorrupt, report.tally.rows)
	}
	return nil
}

// load makes the buckets of a new file, brings an older schema up and reads what is kept in memory.
func (e *Engine) load() error {
	if err := guard(func() error { return e.db.Update(prepare) }); err != nil {
		return err
	}
	return e.view(func(tx *bbolt.Tx) (err error) {
		if e.rev, err = revisionOf(tx); err != nil {
			return err
		}
		if e.head, err = chainAt(tx, logHeadKey); err != nil {
			return err
		}
		e.leases, err = loadLeases(tx, e.now())
		return err
	})
}

// Client returns an etcd client whose every call is answered by this engine. It never dials.
func (e *Engine) Client() *clientv3.Client { return e.client }

// Fatal yields the I/O error after which nothing more is acknowledged. What was acknowledged before is safe; what the disk
// now holds beyond that is not known, so the process must end and start again.
func (e *Engine) Fatal() <-chan error { return e.fatal }

// Close waits for the writes that were accepted, ends all watches and closes the file.
func (e *Engine) Close() error {
	e.halt()
	e.wg.Wait()
	e.client.Close()
	if err := e.db.Close(); err != nil {
		return fmt.Errorf("closing the inventory: %w", err)
	}
	return nil
}

func (e *Engine) halt() { e.once.Do(func() { close(e.stop) }) }

// view runs fn on a snapshot of what is committed.
func (e *Engine) view(fn func(tx *bbolt.Tx) error) error {
	tx, err := e.db.Begin(false)
	if err != nil {
		return ErrClosed
	}
	defer tx.Rollback() //nolint:errcheck // a read transaction has nothing to lose
	return guard(func() error { return fn(tx) })
}

// guard makes an error of a panic: bbolt's on a page that has changed under it, and the fault of memory whose file cannot
// be read.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrCorrupt, p, debug.Stack())
		}
	}()
	return fn()
}

// await waits until all revisions up to rev are durable and their events published. A commit is visible to readers of the
// file a moment before.
func (e *Engine) await(ctx context.Context, rev int64) error {
	for {
		e.mu.RLock()
		published, changed := e.rev, e.changed
		e.mu.RUnlock()
		if published >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.stop:
			return ErrClosed
		}
	}
}

func revisionOf(tx *bbolt.Tx) (int64, error) {
	body, err := metaRow(tx, revisionKey, 8)
	if err == nil && body == nil {
		err = corrupt(metaBucket, revisionKey)
	}
	return number(body), err
}

func number(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

func numberBytes(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
