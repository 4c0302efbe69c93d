// SPDX-License-Identifier: Apache-2.0

package shelf

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// kept counts, by verb (get, list, watch), what went out as the JSON that was kept: an object or an event each. What had to be
// decoded is not in it.
var kept = metrics.NewCounterVec(&metrics.CounterOpts{
	Namespace: "metald", Subsystem: "api", Name: "kept_json_objects_total", StabilityLevel: metrics.ALPHA,
	Help: "Custom resources that were answered from the JSON in memory, without decoding them, by verb.",
}, []string{"verb"})

var register = sync.OnceFunc(func() { legacyregistry.MustRegister(kept) })
