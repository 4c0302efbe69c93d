// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"metald.io/metald/internal/inventory/audit"
	"metald.io/metald/internal/inventory/engine"
)

// recorder makes the record of each write, in the commit of the write.
type recorder struct {
	key     *audit.Key
	archive *audit.Archive
	now     func() time.Time
	// checkpointed is KeepRecord's: the newest checkpoint.
	checkpointed *audit.Checkpoint
}

// openRecorder makes what is missing in the data directory: pki/audit.key and the directory audit.
func openRecorder(dir string, now func() time.Time) (*recorder, error) {
	key, err := audit.EnsureKey(filepath.Join(dir, "pki"))
	if err != nil {
		return nil, err
	}
	archive, err := audit.OpenArchive(filepath.Join(dir, "audit"))
	if err != nil {
		return nil, err
	}
	return &recorder{key: key, archive: archive, now: now}, nil
}

// unrecorded are resources that nobody is asked about afterwards: what was seen, told in words, and beats of hearts.
var unrecorded = map[string]bool{
	"core/events": true, "events.k8s.io/events": true, "coordination.k8s.io/leases": true,
}

// sightings are what metald saw of strangers: recorded only where a person writes one.
const sightings = "metald.io/sightings"

// telling are the parts of a status that say what metald decided or trusts. Of what it writes to a status nothing else is
// recorded: counters, waits and facts, many times a minute, which follow from these.
var telling = map[string][]string{
	"metald.io/hostprogresses": {"status.state", "status.epoch", "status.power", "status.boot", "status.leaving", "status.erase",
		"status.deployment", "status.join"},
	"metald.io/hostinventories": {"status.identity"},
}

// note is engine.Options.Note: what the log holds of the keys that one transaction changed; nil where that is nothing.
func (r *recorder) note(ctx context.Context, events []*mvccpb.Event) []byte {
	if engine.Expired(ctx) {
		return nil // only what tells the news has an end of life
	}
	say := saidIn(ctx)
	record := audit.Record{Time: r.now(), Actor: say.actor, Request: say.request, Host: say.host, Reason: say.reason, Act: say.act}
	for _, e := range events {
		if change, ok := r.change(say.actor, e); ok {
			record.Changes = append(record.Changes, change)
			if record.Host == "" {
				record.Host = hostOf(change.Object)
			}
		}
	}
	if record.Act == nil && len(record.Changes) == 0 {
		return nil
	}
	payload, err := record.Encode()
	if err != nil {
		panic(err) // a time past the year 9999: the engine refuses the write
	}
	return payload
}

// change says what became of one key, and whether that is recorded.
func (r *recorder) change(actor audit.Actor, e *mvccpb.Event) (audit.Change, bool) {
	object, resource := objectAt(string(e.Kv.Key))
	if unrecorded[resource] {
		return audit.Change{}, false
	}
	c := audit.Change{Verb: audit.Update, Object: object}
	var before, after []byte
	if e.PrevKv != nil {
		before = e.PrevKv.Value
	}
	if e.Type == mvccpb.Event_PUT {
		after = e.Kv.Value
	}
	switch {
	case e.Type != mvccpb.Event_PUT:
		c.Verb = audit.Delete
	case e.PrevKv == nil:
		c.Verb = audit.Create
	}
	if c.Verb == audit.Update {
		c.Fields = changedFields(before, after)
	}
	if !person(actor) && !tells(resource, c) {
		return audit.Change{}, false
	}
	newest := after
	if newest == nil {
		newest = before
	}
	c.Object.UID = uidIn(newest)
	digest := audit.Digest
	if resource == "core/secrets" {
		digest = r.key.Digest
	}
	if before != nil {
		c.Before = digest(before)
	}
	if after != nil {
		c.After = digest(after)
	}
	return c, true
}

// person tells whether somebody else than metald, or its API server by itself, does something.
func person(a audit.Actor) bool {
	return a.Via == audit.ViaConsole || a.Via == audit.ViaDoor && a.User != apiServer
}

// apiServer is the name under which the API server calls itself.
const apiServer = "system:apiserver"

// tells whether what metald does to an object by itself belongs into the record.
func tells(resource string, c audit.Change) bool {
	switch {
	case resource == sightings:
		return false
	case c.Verb != audit.Update || c.Fields == nil: // nil: the values cannot be read
		return true
	}
	return slices.ContainsFunc(c.Fields, func(field string) bool {
		if field == "status" || strings.HasPrefix(field, "status.") {
			return slices.Contains(telling[resource], field)
		}
		return true
	})
}

// objectAt reads a key: /registry/<group>/<resource>[/<namespace>]/<name>. resource is "group/resource", with "core" for the
// group without a name. Any other key is an object of its own name.
func objectAt(key string) (object audit.Object, resource string) {
	rest, ok := strings.CutPrefix(key, registry+"/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) < 3 || len(parts) > 4 {
		return audit.Object{Resource: "key", Name: key}, ""
	}
	object = audit.Object{Group: parts[0], Resource: parts[1], Name: parts[len(parts)-1]}
	if len(parts) == 4 {
		object.Namespace = parts[2]
	}
	if object.Group == "core" {
		object.Group = ""
	}
	return object, parts[0] + "/" + parts[1]
}
