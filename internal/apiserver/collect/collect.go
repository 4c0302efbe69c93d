// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	listers "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/storage/value"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
)

const (
	// collectWorkers is how many objects are looked at at the same time.
	collectWorkers = 4
	// collectPage is how many objects are read at once.
	collectPage = 500
	// collectAgain is how long it takes to read the store again after a watch that broke.
	collectAgain = time.Second
	// strangerAgain is how often an owner of a kind that nobody serves is looked for.
	strangerAgain = 30 * time.Second
)

// Config is what a collector needs.
type Config struct {
	// Client reads the store, whose keys begin with Prefix; CoreGroup stands there for the group without a name.
	Client            *kubernetes.Client
	Prefix, CoreGroup string
	// Transformer is what the values of a resource go through on their way out of the store.
	Transformer func(schema.GroupResource) value.Transformer
	// Native are the kinds that are served without a definition, Definitions those that are served by one.
	Native      []Kind
	Definitions listers.CustomResourceDefinitionLister
	// Door is an administrator's way in, and Writer the name under which the collector writes.
	Door   *rest.Config
	Writer string
	Logger *slog.Logger
}

// Collector does what a cluster's controllers for garbage and for namespaces do: it deletes what nobody owns any more,
// answers foreground and orphan deletes, and empties namespaces. It learns of every object from one watch of the store and
// keeps their metadata only. It changes things through the door, as anybody does, so that finalizers and preconditions hold.
type Collector struct {
	reader
	kinds      directory
	graph      *graph
	objects    metadata.Interface
	core       *corev1client.CoreV1Client
	queue      workqueue.TypedRateLimitingInterface[string] // keys of objects
	namespaces workqueue.TypedRateLimitingInterface[string] // names of namespaces that are being deleted
	writer     string
	logger     *slog.Logger
}

// New makes a collector; Run has it work.
func New(c Config) (*Collector, error) {
	config := rest.CopyConfig(c.Door)
	config.UserAgent = c.Writer + "/collector"
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("building the collector's client: %w", err)
	}
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("building the collector's client: %w", err)
	}
	queue := func() workqueue.TypedRateLimitingInterface[string] {
		return workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Minute))
	}
	return &Collector{
		reader:  reader{client: c.Client, seal: c.Transformer, at: keys{prefix: c.Prefix, core: c.CoreGroup}},
		kinds:   directory{native: c.Native, definitions: c.Definitions},
		graph:   newGraph(),
		objects: objects, core: core, queue: queue(), namespaces: queue(), writer: c.Writer, logger: c.Logger,
	}, nil
}

// Run works until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	var group sync.WaitGroup
	read := make(chan struct{})
	group.Go(func() { c.follow(ctx, sync.OnceFunc(func() { close(read) })) })
	select {
	case <-read: // a dependent that was not read yet is no reason to think that there is none
		for range collectWorkers {
			group.Go(func() { work(ctx, c.queue, c.attempt, c.logger) })
		}
		group.Go(func() { work(ctx, c.namespaces, c.empty, c.logger) })
	case <-ctx.Done():
	}
	<-ctx.Done()
	c.queue.ShutDown()
	c.namespaces.ShutDown()
	group.Wait()
}

// again is an error that says when to look once more, and is no failure.
type again struct{ after time.Duration }

func (a again) Error() string { return "again in " + a.after.String() }

func work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], do func(context.Context, string) error, logger *slog.Logger) {
	for {
		key, ended := queue.Get()
		if ended {
			return
		}
		err := do(ctx, key)
		var later again
		switch {
		case err == nil || ctx.Err() != nil:
			queue.Forget(key)
		case errors.As(err, &later):
			queue.Forget(key)
			queue.AddAfter(key, later.after)
		default:
			if queue.NumRequeues(key) > 3 { // a conflict or two is the ordinary way
				logger.Warn("collecting", "object", key, "err", err)
			}
			queue.AddRateLimited(key)
		}
		queue.Done(key)
	}
}

// follow keeps the graph in step with the store, and reads all of it again where the watch fell behind.
func (c *Collector) follow(ctx context.Context, read func()) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		since, err := c.list(ctx)
		if err == nil {
			read()
			err = c.watch(ctx, since)
		}
		if err != nil && ctx.Err() == nil {
			c.logger.Warn("following the store for the collector", "err", err)
		}
	}, collectAgain)
}

// list reads the store page by page. Changes that happen meanwhile are told by the watch from since on, once more.
func (c *Collector) list(ctx context.Context) (since int64, err error) {
	listed := map[string]bool{}
	from, end := c.at.prefix+"/", clientv3.GetPrefixRangeEnd(c.at.prefix+"/")
	for {
		page, err := c.client.KV.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(collectPage))
		if err != nil {
			return 0, fmt.Errorf("listing the store: %w", err)
		}
		if since == 0 {
			since = page.Header.Revision
		}
		for _, pair := range page.Kvs {
			listed[string(pair.Key)] = true
			c.put(ctx, pair.Key, pair.Value, pair.ModRevision)
		}
		if !page.More || len(page.Kvs) == 0 {
			break
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
	c.look(c.graph.keep(listed, since))
	return since, nil
}

// watch follows the changes after a revision. It returns when the watch ends.
func (c *Collector) watch(ctx context.Context, since int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for response := range c.client.Watcher.Watch(clientv3.WithRequireLeader(ctx), c.at.prefix+"/", clientv3.WithPrefix(), clientv3.WithRev(since+1)) {
		if err := response.Err(); err != nil {
			return fmt.Errorf("watching the store: %w", err)
		}
		for _, event := range response.Events {
			if event.Type == clientv3.EventTypeDelete {
				c.remove(string(event.Kv.Key), event.Kv.ModRevision)
				continue
			}
			c.put(ctx, event.Kv.Key, event.Kv.Value, event.Kv.ModRevision)
		}
	}
	return errors.New("the watch of the store ended")
}

func (c *Collector) put(ctx context.Context, key, data []byte, revision int64) {
	i, err := c.item(ctx, key, data, revision)
	if err != nil {
		c.logger.Error("reading an object for the collector", "err", err) // it stays as it is, and so do its dependents
		return
	}
	if i == nil {
		return
	}
	c.look(c.graph.put(i))
	if i.deleting && isNamespace(i) {
		c.namespaces.Add(i.name)
	}
}

func (c *Collector) remove(key string, revision int64) {
	was := c.graph.at(key)
	c.look(c.graph.remove(key, revision))
	if was == nil || was.namespace == "" {
		return
	}
	if in := c.graph.at(c.namespaceKey(was.namespace)); in != nil && in.deleting {
		c.namespaces.Add(in.name)
	}
}

func (c *Collector) look(keys []string) {
	for _, key := range keys {
		c.queue.Add(key)
	}
}
