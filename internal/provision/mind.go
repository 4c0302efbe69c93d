// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/cluster"
	"metald.io/metald/internal/inventory"
)

// Images is what the mind needs of the blob store.
type Images interface {
	// Ramdisk answers the UKI that machines of an architecture boot for inspection.
	Ramdisk(arch string) (v1alpha1.File, error)
	// Verify reads a blob and compares its digest and size.
	Verify(v1alpha1.File) error
}

// Cluster is what the mind needs of a control plane.
type Cluster interface {
	Granter
	Nodes
	Drainer
}

// Granter gives and takes back bootstrap credentials.
type Granter interface {
	Grant(ctx context.Context, node string, ttl time.Duration) (cluster.Grant, error)
	Revoke(ctx context.Context, tokenID string) error
	Approve(ctx context.Context, csr string, want cluster.Expected) error
}

// Nodes follows what the control plane sees.
type Nodes interface {
	Version(ctx context.Context) (string, error)
	Follow(ctx context.Context, f cluster.Follower) error
	Label(ctx context.Context, node string, labels map[string]string) error
}

// Drainer takes Nodes out of service.
type Drainer interface {
	Cordon(ctx context.Context, node, host string, on bool) error
	// Drain is one pass: it asks each pod to go and names those that are still there.
	Drain(ctx context.Context, node, host string, until time.Time) (left []string, err error)
	DeleteNode(ctx context.Context, node, host string) error
}

// BMCs reaches baseboard controllers.
type BMCs interface {
	Certificate(ctx context.Context, a bmc.Address) (string, *x509.Certificate, error)
	Dial(ctx context.Context, t bmc.Target) (bmc.Controller, error)
	Sweep(ctx context.Context, prefixes []netip.Prefix, found func(bmc.Found)) error
}

// Limits are the times that the mind gives to others.
type Limits struct {
	// Boot is how long a machine has from power-on to the agent's proof.
	Boot time.Duration
	// Join is the life of a bootstrap credential.
	Join time.Duration
	// Poll is how often a quiet host's BMC is asked for its power.
	Poll time.Duration
	// DestructivePerHour caps erases, writes to disks that may hold something, and power-offs of what runs, in all of the site;
	// a negative number is no cap.
	DestructivePerHour int
	// Boots caps how many machines boot at once; 0 is no cap.
	Boots int
	// Sweep is how often SweepPrefixes are searched for BMCs.
	Sweep time.Duration
}

// Config is what the mind is handed.
type Config struct {
	Store         *inventory.Store
	Images        Images
	BMCs          BMCs
	Connect       func(kubeconfig []byte, server string) (Cluster, error)
	Limits        Limits
	SweepPrefixes []netip.Prefix
	Logger        *slog.Logger
	Now           func() time.Time
}

// Mind walks hosts through their lives.
type Mind struct {
	Config
	log *slog.Logger
	now func() time.Time

	hosts       *mirror[*metal3.BareMetalHost]
	progress    *mirror[*v1alpha1.HostProgress]
	inventories *mirror[*v1alpha1.HostInventory]
	images      *mirror[*v1alpha1.Image]
	clusters    *mirror[*v1alpha1.KubernetesCluster]
	pools       *mirror[*v1alpha1.NodePool]
	namespaces  *mirror[*corev1.Namespace]
	evidence    *index
	references  *index // by what a host refers to
	fleet       *fleet

	queue     workqueue.TypedDelayingInterface[work]
	wakes     *wakes
	bmcs      *controllers
	follows   *follows
	asked     sync.Map // host key -> time a boot file was last asked for
	transfers *transfers
	// pausedPools says of each pool whether it was paused when it was last seen.
	pausedPools      sync.Map
	everythingPaused atomic.Bool
	acts             acts
	slots            slots
	restore          restore
	observations     sync.Map // UID of a host -> the restore since which it was seen
	sighting         *sightings
	synced           chan struct{}
}

// work is one thing to look at: a host, a pool, a cluster or an image.
type work struct {
	kind string
	key  string
}

const (
	hostWork    = "host"
	poolWork    = "pool"
	clusterWork = "cluster"
	imageWork   = "image"

	// workers is how many things are looked at at once. A worker may wait half a minute for a BMC that hangs, so there
	// are many; each is a goroutine that sleeps.
	workers = 48
)

// New makes a mind. It does nothing until Run.
func New(c Config) *Mind {
	if c.Now == nil {
		c.Now = time.Now
	}
	m := &Mind{
		Config: c, log: c.Logger, now: c.Now,
		evidence: newIndex(), references: newIndex(), fleet: newFleet(),
		queue:     workqueue.NewTypedDelayingQueue[work](),
		wakes:     newWakes(),
		bmcs:      newControllers(),
		follows:   newFollows(),
		transfers: newTransfers(c.Now()),
		synced:    make(chan struct{}),
	}
	m.sighting = newSightings(c.Store.Sightings(), c.Logger, c.Now)
	m.hosts = newMirror(m.hostChanged)
	m.progress = newMirror(func(p *v1alpha1.HostProgress, _ bool) { m.lookAtHost(keyOf(p)) })
	m.inventories = newMirror(func(i *v1alpha1.HostInventory, _ bool) {
		m.indexHost(keyOf(i))
		m.lookAtHost(keyOf(i))
	})
	m.images = newMirror(func(i *v1alpha1.Image, _ bool) {
		m.queue.Add(work{imageWork, keyOf(i)})
		m.lookAtPools("")
	})
	m.clusters = newMirror(func(c *v1alpha1.KubernetesCluster, _ bool) {
		m.queue.Add(work{clusterWork, keyOf(c)})
		m.lookAtPools(c.Namespace) // here, not where its status is written: a pool looks into this mirror
	})
	m.pools = newMirror(func(p *v1alpha1.NodePool, _ bool) {
		m.queue.Add(work{poolWork, keyOf(p)})
		_, paused := p.Annotations[v1alpha1.PausedAnnotation]
		if was, _ := m.pausedPools.Swap(keyOf(p), paused); was != paused {
			m.lookAtHostsOf(p)
		}
	})
	m.namespaces = newMirror(func(n *corev1.Namespace, _ bool) {
		_, paused := n.Annotations[v1alpha1.PausedAnnotation]
		if n.Name == v1alpha1.OwnNamespace && m.everythingPaused.Swap(paused) != paused {
			m.lookAtPools("")
			for _, h := range m.hosts.all() {
				m.lookAtHost(keyOf(h))
			}
		}
	})
	return m
}

// indexHost notes by which evidence a host can be told.
func (m *Mind) indexHost(key string) {
	h, ok := m.hosts.get(key)
	if !ok {
		m.evidence.set(key)
		m.references.set(key)
		return
	}
	m.references.set(key, references(h)...)
	words := []string{macWord(h.Spec.BootMACAddress)}
	if i, ok := m.inventories.get(key); ok && i.Status.Identity != nil {
		id := i.Status.Identity
		words = append(words, uuidWord(id.SystemUUID), ekWord(id.EKSHA256))
		if b := i.Status.BMC; b != nil {
			words = append(words, serialWord(b.Manufacturer, id.SerialNumber))
		}
	}
	m.evidence.set(key, words...)
}

func macWord(mac string) string { return word("mac", mac) }
func uuidWord(u string) string  { return word("uuid", u) }
func ekWord(ek string) string   { return word("ek", ek) }

// serialWord is a serial number of a maker's: two makers may use the same numbers.
func serialWord(maker, serial string) string {
	if serial == "" {
		return ""
	}
	return word("serial", maker+"/"+serial)
}

func word(kind, value string) string {
	if value == "" {
		return ""
	}
	return kind + " " + strings.ToLower(value)
}

// lookAtHost queues a host and wakes the agents that wait for it.
func (m *Mind) lookAtHost(key string) {
	m.queue.Add(work{hostWork, key})
	m.wakes.wake(key)
}

// lookAtPools queues the pools of a namespace, or all.
func (m *Mind) lookAtPools(namespace string) {
	for _, p := range m.pools.all() {
		if namespace == "" || p.Namespace == namespace {
			m.queue.Add(work{poolWork, keyOf(p)})
		}
	}
}

// Synced is closed once Run has all objects in memory. Until then Boot takes hosts for strangers, and does not know what was
// ordered for them.
func (m *Mind) Synced() <-chan struct{} { return m.synced }

// Run works until ctx ends.
func (m *Mind) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	s := m.Store
	g.Go(func() error { return m.hosts.run(ctx, s.Hosts()) })
	g.Go(func() error { return m.progress.run(ctx, s.Progresses()) })
	g.Go(func() error { return m.inventories.run(ctx, s.Inventories()) })
	g.Go(func() error { return m.images.run(ctx, s.Images()) })
	g.Go(func() error { return m.clusters.run(ctx, s.Clusters()) })
	g.Go(func() error { return m.pools.run(ctx, s.Pools()) })
	g.Go(func() error { return m.namespaces.run(ctx, s.Namespaces()) })
	g.Go(func() error { return m.watchSecrets(ctx) })
	g.Go(func() error { return m.sighting.run(ctx) })
	g.Go(func() error { return m.sweep(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		m.queue.ShutDown()
		return nil
	})
	for _, synced := range []chan struct{}{m.hosts.synced, m.progress.synced, m.inventories.synced, m.images.synced,
		m.clusters.synced, m.pools.synced, m.namespaces.synced} {
		select {
		case <-synced:
		case <-ctx.Done():
			return g.Wait()
		}
	}
	close(m.synced)
	for range workers {
		g.Go(func() error {
			for {
				w, shutdown := m.queue.Get()
				if shutdown {
					return nil
				}
				m.do(ctx, w)
				m.queue.Done(w)
			}
		})
	}
	err := g.Wait()
	m.follows.close()
	m.bmcs.close()
	return err
}

// do looks at one thing and says when to look again.
func (m *Mind) do(ctx context.Context, w work) {
	var after time.Duration
	var err error
	switch w.kind {
	case hostWork:
		after, err = m.host(ctx, w.key)
	case poolWork:
		after, err = m.pool(ctx, w.key)
	case clusterWork:
		after, err = m.cluster(ctx, w.key)
	case imageWork:
		after, err = m.image(ctx, w.key)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.log.Error("looking at an object", "kind", w.kind, "key", w.key, "err", err)
		after = 5 * time.Second
	}
	if after > 0 {
		m.queue.AddAfter(w, after)
	}
}

// wakes lets agents wait for a change of their host.
type wakes struct {
	mu sync.Mutex
	on map[string]chan struct{}
}

func newWakes() *wakes { return &wakes{on: map[string]chan struct{}{}} }

// wait answers a channel that is closed at the host's next change. Take it before reading the host.
func (w *wakes) wait(key string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.on[key] == nil {
		w.on[key] = make(chan struct{})
	}
	return w.on[key]
}

func (w *wakes) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.on[key]; c != nil {
		close(c)
		delete(w.on, key)
	}
}
