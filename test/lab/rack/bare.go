// SPDX-License-Identifier: Apache-2.0

package rack

import "context"

// Bare makes the network and the first machine's BMC, and neither metald nor a cluster: it is for whoever brings a metald of
// their own. The lab's program must be there (Program).
func (r *Rack) Bare(ctx context.Context) error {
	r.Hosts = 1
	return r.run(ctx, []phase{
		{name: "network", run: r.fresh},
		{name: "machine's BMC", run: func(ctx context.Context) error { return r.StartBMC(ctx, r.Spec(0).Name) }},
	})
}
