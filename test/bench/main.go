// SPDX-License-Identifier: Apache-2.0

// Command bench measures metald beside its peers and prints one line for each benchmark:
//
//	BENCH <id> metald=<value> peer=<value> ratio=<ratio> unit=<unit>
//
// with a line above it that names the peer and the durability of both sides. It measures and judges nothing: goals are the
// reader's. It must not touch metald's insides. A peer that cannot be had is said to be absent, and no line is printed.
//
// Start reading at benchmarks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"metald.io/metald/test/lab/rack"
)

// benchmark is one line of the result. The rack is nil where it needs none.
type benchmark struct {
	id, what string
	rack     bool
	run      func(context.Context, *rack.Rack, int) error
}

// benchmarks by their id. Those that share a rack run in one go.
var benchmarks = []benchmark{
	{"P9", "writing an image to a block device, over curl | zstd -d | dd oflag=direct", false, writeDisk},
	{"P12", "GET p99, LIST of 5,000 hosts (P12l) and memory (P12m), over kube-apiserver and etcd", false, apiReads},
	{"P13", "durable writes of 2 KB by 64 writers, creates and read-modify-writes (P13u), over etcd", false, durableWrites},
	{"P14", "events delivered to 1,000 watchers a second of CPU, over etcd", false, watching},
	{"P16", "power-on to Ready over the hand-driven floor, emulated machine, diskless", true, firstBoot},
	{"P19", "p95 of what metald adds to a host's way from import to Ready, in seconds, over the goal of 60", true, overhead},
	{"flood", "what a flood of 10,000 requests a second does to another client's GETs and to DHCP", false, flood},
	{"P18", "size of the ramdisk in MiB, over the goal of 40", true, ramdiskSize},
}

func main() {
	only := flag.String("only", os.Getenv("ONLY"), "ids of the benchmarks to run, all when empty")
	pairs := flag.Int("pairs", 5, "interleaved pairs a benchmark runs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Fields(strings.ReplaceAll(*only, ",", " ")), *pairs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only []string, pairs int) (err error) {
	for i, id := range only {
		// P13u and its like are lines of the benchmark that they are named after.
		id = strings.TrimRight(id, "lmu")
		only[i] = id
		if !slices.ContainsFunc(benchmarks, func(b benchmark) bool { return b.id == id }) {
			return fmt.Errorf("there is no benchmark %s yet", id)
		}
	}
	if pairs < 1 {
		return errors.New("-pairs must be at least 1")
	}
	var r *rack.Rack
	defer func() {
		if r != nil {
			err = errors.Join(err, r.Down(context.WithoutCancel(ctx)))
		}
	}()
	for _, b := range benchmarks {
		if len(only) > 0 && !slices.Contains(only, b.id) {
			continue
		}
		if b.rack && r == nil {
			if r, err = rack.New("bench", os.Stderr); err != nil {
				return err
			}
			r.Hosts = 1 // the one that boots as the peer's does
			if err := errors.Join(r.Down(ctx), r.RunSetup(ctx)); err != nil {
				return err
			}
		}
		fmt.Printf("# %s: %s\n", b.id, b.what)
		if err := b.run(ctx, r, pairs); err != nil {
			return fmt.Errorf("%s: %w", b.id, err)
		}
	}
	return nil
}
