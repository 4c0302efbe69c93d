// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/api/v1alpha1"
)

// functions makes PCI functions, one GPU to nine bridges.
func functions(n int) []v1alpha1.PCIFacts {
	var all []v1alpha1.PCIFacts
	for i := range n {
		f := v1alpha1.PCIFacts{Address: fmt.Sprintf("%04x:00:00.0", i), VendorID: "10de", Kind: "bridge", Driver: "pcieport", MaxLinkSpeed: "32.0 GT/s PCIe"}
		if i%10 == 0 {
			f.Kind = "gpu"
		}
		all = append(all, f)
	}
	return all
}

func TestFit(t *testing.T) {
	for _, test := range []struct {
		name      string
		functions int
		pci       int
		flags     bool
		leftOut   int
	}{
		{"a common machine", 300, 300, true, 0},
		{"very many functions", 3000, 300, false, 2},
		{"more than can be", 40000, 0, false, 4},
	} {
		facts := &v1alpha1.HostFacts{CPU: v1alpha1.CPUFacts{Flags: []string{"sse"}}, PCI: functions(test.functions)}
		got := Fit(facts)
		text, err := json.Marshal(got)
		if err != nil || len(text) > maxFacts {
			t.Errorf("%s: %d bytes, %v", test.name, len(text), err)
		}
		if len(got.PCI) != test.pci || (got.CPU.Flags != nil) != test.flags || len(got.Problems) != test.leftOut {
			t.Errorf("%s: kept %d functions, flags %v, and says %q", test.name, len(got.PCI), got.CPU.Flags, got.Problems)
		}
	}
}

func TestSummary(t *testing.T) {
	got := Summary(&v1alpha1.HostFacts{
		System: v1alpha1.SystemFacts{Manufacturer: "Lab", Product: "Host"}, CPU: v1alpha1.CPUFacts{Threads: 224}, Memory: v1alpha1.MemoryFacts{TotalMiB: 2048},
		Disks: make([]v1alpha1.DiskFacts, 2), NICs: make([]v1alpha1.NICFacts, 10), PCI: functions(80), TPM: &v1alpha1.TPMFacts{Version: "2.0"}, Problems: []string{"x"},
	})
	want := "Lab Host, 224 CPU threads, 2048 MiB, 2 disks, 10 NICs, 8 GPUs, TPM 2.0, 1 facts could not be read"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConsoleDoesNotRepeatItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := NewConsole(&out)
		for range 10 {
			c.Say("waiting for %s", "orders")
			c.Shout("trouble.", "do this")
			time.Sleep(10 * time.Second)
		}
		if n := strings.Count(out.String(), "waiting for orders"); n != 2 {
			t.Errorf("in 100 seconds it said %d times that it waits, want 2:\n%s", n, &out)
		}
		if n := strings.Count(out.String(), "do this"); n != 2 {
			t.Errorf("in 100 seconds it shouted %d times, want 2:\n%s", n, &out)
		}
		c.Say("two\nlines")
		if !strings.HasSuffix(out.String(), "two lines\n") {
			t.Errorf("a line was broken: %q", out.String())
		}
	})
}

func TestBootIsLeftAndFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "metald")
	boot := Boot{BootURL: "http://172.22.0.1", AgentURL: "https://172.22.0.1:8443", MAC: "52:54:00:aa:00:01", RootHash: "ab"}
	if err := Leave(dir, boot, []byte("a CA"), nil); err != nil {
		t.Fatal(err)
	}
	got, err := ReadBoot(dir)
	if diff := cmp.Diff(boot, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if authority, err := Authority(dir); err != nil || string(authority) != "a CA" {
		t.Errorf("got %q, %v", authority, err)
	}
	if seed, err := ReadSeed(dir); seed != nil || err != nil {
		t.Errorf("a boot without a seed has %+v, %v", seed, err)
	}
	if err := Leave(dir, boot, []byte("a CA"), &v1alpha1.JoinSeed{NodeName: "r1n01"}); err != nil {
		t.Fatal(err)
	}
	if seed, err := ReadSeed(dir); err != nil || seed == nil || seed.NodeName != "r1n01" {
		t.Errorf("got seed %+v, %v", seed, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "seed.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the seed has mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "seed.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSeed(dir); err == nil {
		t.Error("a broken seed was taken for none")
	}
}
