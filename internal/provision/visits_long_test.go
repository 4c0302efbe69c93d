// SPDX-License-Identifier: Apache-2.0

//go:build long

package provision

import "testing"

func TestCostOfChangeLong(t *testing.T) { testCostOfChange(t, 10000) }
