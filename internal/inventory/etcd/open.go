// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/feature"

	"metald.io/metald/internal/inventory/engine"
)

const (
	// schemaVersion is the version of what lies below the prefix. A newer one is refused.
	schemaVersion = 1
	// oldest is the first etcd that reports a watch's progress right when it is asked to (etcd-io/etcd#17507): without that a
	// list from the watch cache may be old.
	oldest = "3.5.13"
	// streaming is the first etcd that answers a long list in pieces.
	streaming = "3.7.0"
	// answerLimit is how long etcd may take to answer anything.
	answerLimit = 5 * time.Second
	// startLimit is how long Open waits for the first answer.
	startLimit = 5 * time.Second
	// laggardLimit is how long it waits for other endpoints after that.
	laggardLimit = 500 * time.Millisecond
)

// Options are Open's.
type Options struct {
	Logger *slog.Logger
	// Now gives the times that are stored.
	Now func() time.Time
	// Me is who holds the inventory from now on.
	Me Holder
	// Note is called for each request that changes keys, with its context and its events, before they are written; what it
	// returns is appended to the log in the same transaction, if it is not nil. It may be called again for the same request,
	// where somebody else was quicker. The events have no revisions yet.
	Note func(ctx context.Context, events []*mvccpb.Event) []byte
	// History is how long old revisions are kept for watches that resume; 0 is 5 minutes.
	History time.Duration
}

// Backend is an open prefix of an etcd. Its methods may be called from any goroutine.
type Backend struct {
	keys   keys
	kv     pb.KVClient      // sees all keys
	raw    *clientv3.Client // its leases and its care; its KV and watches are not used
	client *clientv3.Client // what Client returns
	logger *slog.Logger
	now    func() time.Time
	noter  func(context.Context, []*mvccpb.Event) []byte
	me     Holder
	// cluster is etcd's own name of itself, version that of its oldest member.
	cluster uint64
	version *version.Version

	ctx   context.Context // ends with stop
	stop  chan struct{}   // closed by Close, and where nothing may be written any more
	once  sync.Once
	fatal chan error
	// closed is Close's: it works once.
	closed atomic.Bool
	wg     sync.WaitGroup

	held    atomic.Pointer[hold]
	holding sync.Mutex // one at a time takes the hold again

	turn   chan struct{} // who has its one place may add to the log
	unsure bool          // turn's: a write was lost sight of, so the head may have moved
	chain  atomic.Pointer[chain]
}

// chain is the newest entry of the log.
type chain struct {
	seq  uint64
	hash [sha256.Size]byte
	mod  int64 // the revision that wrote the head
}

// Open takes hold of the prefix. While another daemon has it, the error wraps ErrHeld and names that one.
func Open(ctx context.Context, c Config, o Options) (_ *Backend, err error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return nil, err
	}
	raw, err := dial(c)
	if err != nil {
		return nil, err
	}
	b := &Backend{
		keys: keysBelow(c.Prefix), kv: clientv3.RetryKVClient(raw), raw: raw, logger: o.Logger, now: o.Now, noter: o.Note, me: o.Me,
		stop: make(chan struct{}), fatal: make(chan error, 1), turn: make(chan struct{}, 1),
	}
	var cancel context.CancelFunc
	b.ctx, cancel = context.WithCancel(context.Background())
	context.AfterFunc(b.ctx, func() { b.once.Do(func() { close(b.stop) }) })
	defer func() {
		if err != nil {
			cancel()
			b.letGo()
			raw.Close()
			err = fmt.Errorf("opening %s in etcd at %s: %w", c.Prefix, c.hosts(), err)
		}
	}()
	if err := b.inspect(ctx, c); err != nil {
		return nil, err
	}
	ctx, end := context.WithTimeout(ctx, answerLimit)
	defer end()
	// The schema is looked at before anything is written.
	if err := b.checkSchema(ctx); err != nil {
		return nil, err
	}
	if err := b.acquire(ctx); err != nil {
		return nil, err
	}
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	if err := b.loadHead(ctx); err != nil {
		return nil, err
	}
	b.client = b.newClient()
	if o.History == 0 {
		o.History = 5 * time.Minute
	}
	b.wg.Add(3)
	go b.keepHold()
	go b.compact(o.History)
	go func() { // what waits for etcd ends with the backend
		defer b.wg.Done()
		<-b.stop
		cancel()
	}()
	return b, nil
}

// newClient is the client for the stores above: keys without the prefix, and every write through transact.
func (b *Backend) newClient() *clientv3.Client {
	c := clientv3.NewCtxClient(b.ctx)
	c.KV = clientv3.NewKVFromKVClient(wire{b}, nil)
	c.Watcher = namespace.NewWatcher(b.raw.Watcher, b.keys.objects)
	c.Lease, c.Maintenance, c.Cluster = lessor{b.raw.Lease, b}, b.raw.Maintenance, b.raw.Cluster
	// apiserver's factory, which is not used here, would ask each endpoint whether it reports progress on demand. inspect has.
	feature.DefaultFeatureSupportChecker.CheckClient(context.Background(), asked{}, storage.RequestWatchProgress)
	if b.version.LessThan(version.MustParseSemantic(streaming)) {
		feature.DefaultFeatureSupportChecker.MarkUnsupported(storage.RangeStream)
	}
	return c
}

// asked answers for endpoints that were asked already.
type asked struct{}

func (asked) Endpoints() []string { return []string{"metald-etcd"} }

func (asked) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	return &clientv3.StatusResponse{Version: oldest}, nil
}

// Cluster names the etcd cluster, so that a data directory can tell whether it is its own.
func (b *Backend) Cluster() string { return strconv.FormatUint(b.cluster, 16) }

// Client returns an etcd client that sees the keys without the prefix, and whose writes are recorded. Its leases are etcd's own.
func (b *Backend) Client() *clientv3.Client { return b.client }

// Fatal yields why nothing more may be written: the process must end and start again.
func (b *Backend) Fatal() <-chan error { return b.fatal }

// Close ends all watches and lets go of the prefix.
func (b *Backend) Close() error {
	b.once.Do(func() { close(b.stop) })
	b.wg.Wait()
	if b.closed.Swap(true) {
		return nil
	}
	b.letGo()
	if err := errors.Join(b.client.Watcher.Close(), b.raw.Close()); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing the connection to etcd: %w", err)
	}
	return nil
}

// fail takes the backend out of service.
func (b *Backend) fail(err error) error {
	b.logger.Error("inventory stopped", "err", err)
	select {
	case b.fatal <- err:
	default:
	}
	b.once.Do(func() { close(b.stop) })
	return spoken{codes.Unavailable, fmt.Errorf("%w: %w", engine.ErrClosed, err)}
}
