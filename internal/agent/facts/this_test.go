// SPDX-License-Identifier: Apache-2.0

package facts

import "testing"

func TestReadThisMachine(t *testing.T) {
	got := Read("/", "")
	if got.CPU.Threads == 0 || got.CPU.Architecture != architecture || got.Memory.TotalMiB == 0 || got.Kernel == "" {
		t.Errorf("this machine has no processor, memory or kernel: %+v", got)
	}
	t.Logf("%+v", got)
}
