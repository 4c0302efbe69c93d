// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// The ways that an actor comes by.
const (
	ViaDoor    = "door"    // the users' API
	ViaMind    = "mind"    // metald by itself
	ViaAgent   = "agent"   // what runs on a host
	ViaConsole = "console" // a person at a host's console
	ViaOffline = "offline" // a command in the data directory, with no daemon
)

// Actor is who did something.
type Actor struct {
	User   string   `json:"user"`
	Groups []string `json:"groups,omitempty"`
	// Via is one of the Via constants.
	Via string `json:"via"`
	// Address is the other end of the connection, without the port; empty where there was none.
	Address string `json:"address,omitempty"`
	// As is whom User acted as, where it impersonated somebody: the one whose rights counted.
	As string `json:"as,omitempty"`
}

// Object is which object was changed.
type Object struct {
	Group     string `json:"group,omitempty"`
	Resource  string `json:"resource"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
}

func (o Object) String() string {
	text := o.Resource
	if o.Group != "" {
		text += "." + o.Group
	}
	if o.Namespace != "" {
		return text + " " + o.Namespace + "/" + o.Name
	}
	return text + " " + o.Name
}

// The verbs of a Change.
const (
	Create = "create"
	Update = "update"
	Delete = "delete"
)

// Change is one object that was written or removed.
type Change struct {
	Verb   string `json:"verb"`
	Object Object `json:"object"`
	// Fields are the parts that an update changed, in order: "spec", "data", "metadata.labels", "status.boot".
	Fields []string `json:"fields,omitempty"`
	// Before and After are digests of the object's stored bytes, with the algorithm before a colon; empty where it was not
	// there. A Secret's are keyed: see Key.Digest.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// The phases of an Act.
const (
	Intent = "intent" // it is about to be done
	Done   = "done"
	Failed = "failed" // it did not come to its end; whether it had an effect, Error may tell
)

// The verbs of acts that say that the record does not go on from where it had been.
const (
	Restore = "restore backup"         // an older inventory, and the record in it, was put in the place of this one
	GoOn    = "go on after a rollback" // the daemon found that its newest checkpoint vouches for more, or other, than it has
)

// Act is something that metald does to the world: its intent is on disk before it is done, and its outcome after.
type Act struct {
	// Verb is what is done: "switch on", "erase drives", "release join credential".
	Verb  string `json:"verb"`
	Phase string `json:"phase"`
	// Intent is the number of the entry that announced an outcome; 0 in an intent, and in what needs none.
	Intent uint64 `json:"intent,omitempty"`
	// Target is what it is done to, beyond the host: a BMC's address, a cluster.
	Target string `json:"target,omitempty"`
	// Detail is what of it: a boot target, the public half of a token. Never a secret.
	Detail string `json:"detail,omitempty"`
	Epoch  int64  `json:"epoch,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Record is what one entry says: changes of objects that were committed together with it, an act, or both.
type Record struct {
	Time  time.Time `json:"time"`
	Actor Actor     `json:"actor"`
	// Request is the id that the API's own audit log has for the request.
	Request string `json:"request,omitempty"`
	// Host is the host that it concerns, as namespace/name.
	Host    string   `json:"host,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Act     *Act     `json:"act,omitempty"`
	Changes []Change `json:"changes,omitempty"`
}

// Words that others choose are cut to so many bytes, and lists to so many words.
const (
	maxText = 1024
	maxList = 64
)

// Encode gives a record's one spelling. Long words are cut.
func (r Record) Encode() ([]byte, error) {
	r.Time = r.Time.UTC()
	cut(&r.Actor.User, &r.Actor.Address, &r.Actor.As, &r.Request, &r.Host, &r.Reason)
	if len(r.Actor.Groups) > 0 {
		r.Actor.Groups = append([]string{}, r.Actor.Groups[:min(len(r.Actor.Groups), maxList)]...)
		for i := range r.Actor.Groups {
			cut(&r.Actor.Groups[i])
		}
	}
	if r.Act != nil {
		act := *r.Act
		cut(&act.Target, &act.Detail, &act.Error)
		r.Act = &act
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding a record: %w", err)
	}
	return data, nil
}

// cut keeps words short, and valid: encoding/json spells invalid bytes in a way that it would not spell again.
func cut(words ...*string) {
	for _, w := range words {
		if len(*w) > maxText {
			end := maxText
			for end > maxText-utf8.UTFMax && !utf8.RuneStart((*w)[end]) {
				end--
			}
			*w = (*w)[:end] + "…"
		}
		if !utf8.ValidString(*w) {
			*w = strings.ToValidUTF8(*w, "\uFFFD")
		}
	}
}

// DecodeRecord reads what Encode wrote, and refuses any other spelling of it: unknown, repeated or reordered fields, spaces.
func DecodeRecord(payload []byte) (Record, error) {
	var r Record
	if err := decode(payload, &r); err != nil {
		return Record{}, err
	}
	_, offset := r.Time.Zone()
	switch {
	case offset != 0:
		return Record{}, errors.New("the time is not in UTC")
	case r.Act == nil && len(r.Changes) == 0:
		return Record{}, errors.New("the record says nothing")
	case r.Act != nil && r.Act.Phase == Intent && r.Act.Intent != 0:
		return Record{}, errors.New("an intent names another intent")
	}
	return r, nil
}

var errSpelling = errors.New("the text is not spelt as metald spells it: a field is unknown, repeated, empty or out of order, or there are other bytes")

// decode reads JSON that json.Marshal wrote, and nothing else.
func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("decoding: %w", err)
	}
	again, err := json.Marshal(into)
	if err != nil {
		return fmt.Errorf("decoding: %w", err)
	}
	if !bytes.Equal(again, data) {
		return errSpelling
	}
	return nil
}
