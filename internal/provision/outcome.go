// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"math/rand/v2"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// outcome is how one step ended. There are four: the state is left, something is awaited, the step failed and is tried
// again, or a person must act.
type outcome struct {
	event   Event
	waiting *v1alpha1.Waiting
	// after is when to look again without any change; 0 leaves it to the poll interval.
	after time.Duration
	// err is a failure that counts; errType is Metal3's word for its kind.
	err     error
	errType metal3.ErrorType
	// person is true where trying again cannot help until something changes.
	person bool
}

// moved leaves the state.
func moved(e Event) outcome { return outcome{event: e} }

// awaits names what the host waits for; until is zero where there is no deadline.
func awaits(what, reason string, until time.Time, action string, after time.Duration) outcome {
	w := &v1alpha1.Waiting{For: what, Reason: reason, Action: action}
	if !until.IsZero() {
		t := metav1.NewTime(until)
		w.Until = &t
	}
	return outcome{waiting: w, after: after}
}

// content is a final state: nothing is awaited.
func content() outcome { return outcome{} }

// failed is a step that may work when it is tried again.
func failed(kind metal3.ErrorType, err error) outcome { return outcome{err: err, errType: kind} }

// stuck is a step that a person must mend; reason and action say how.
func stuck(kind metal3.ErrorType, reason string, err error, action string) outcome {
	return outcome{err: err, errType: kind, person: true, waiting: &v1alpha1.Waiting{
		For: "a person: " + err.Error(), Reason: reason, Action: action,
	}}
}

// heldBack is like stuck, but nothing has failed: metald waits to be allowed.
func heldBack(reason, what, action string) outcome {
	return outcome{person: true, waiting: &v1alpha1.Waiting{For: what, Reason: reason, Action: action}}
}

// backoff is the wait before try number n (from 1), with jitter so that a rack does not retry in step:
//
//	n      1    2    3    4     5     6     7+
//	wait   5s   10s  20s  40s   80s   160s  5m   each +-20 %
func backoff(n int) time.Duration {
	wait := 5 * time.Minute
	if n < 7 {
		wait = 5 * time.Second << max(n-1, 0)
	}
	return time.Duration(float64(wait) * (0.8 + 0.4*rand.Float64()))
}
