// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"metald.io/metald/internal/daemon"
	"metald.io/metald/test/lab/rack"
)

const (
	floodRate  = 10_000 // requests a second that the flood offers
	floodGets  = 50     // a second, of the other client
	floodDHCP  = 20     // exchanges a second
	floodHosts = 16     // that exchange them
	floodRound = 5 * time.Second
	floodRole  = "METALD_BENCH_FLOOD" // in the environment of the programs that this one starts as
)

// flood measures what one client's flood does to another client's reads and to DHCP. The daemon has the first core to itself,
// the flood and those who measure share the second, the latter before the former, and all of them go before whatever else the
// machine does. They are in a network namespace that ends with the bench. Rounds with and without the flood take turns.
func flood(ctx context.Context, _ *rack.Rack, pairs int) error {
	switch role := os.Getenv(floodRole); role {
	case "":
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "taskset", "-c", "1", self, "-only", "flood", "-pairs", strconv.Itoa(pairs))
		cmd.Env = append(os.Environ(), floodRole+"=measure")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setsid: true, Pdeathsig: syscall.SIGKILL}
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		return cmd.Run()
	case "measure":
		// Where the kernel shares the cores between sessions, this one's share is set here; elsewhere it is the nice value's.
		_ = os.WriteFile("/proc/self/autogroup", []byte("-20"), 0)
		if err := syscall.Setpriority(syscall.PRIO_PGRP, 0, -20); err != nil {
			return fmt.Errorf("going before others: %w", err)
		}
		return measureFlood(ctx, pairs)
	case "offer":
		return offerFlood(ctx)
	default:
		return fmt.Errorf("%s=%s means nothing", floodRole, role)
	}
}

func measureFlood(ctx context.Context, pairs int) (err error) {
	r, err := rack.New("bench", os.Stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "metald-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, line := range [][]string{
		{"link", "set", "lo", "up"}, {"link", "add", "boot0", "type", "veth", "peer", "name", "host0"},
		{"address", "add", "172.29.0.1/24", "dev", "boot0"}, {"link", "set", "boot0", "up"}, {"link", "set", "host0", "up"},
	} {
		if _, err := command(ctx, "ip", line...); err != nil {
			return err
		}
	}
	d, logins, err := startFlooded(ctx, cmp.Or(os.Getenv("METALD"), r.Metald()), dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	m, err := newFloodMeter(ctx, d, logins["other"])
	if err != nil {
		return err
	}
	defer m.close()
	var quiet, flooded floodTimes
	var offered floodCount
	for range pairs {
		for _, times := range []*floodTimes{&quiet, &flooded} {
			var load *exec.Cmd
			var out bytes.Buffer
			if times == &flooded {
				if load, err = startOffer(ctx, logins["flood"], &out); err != nil {
					return err
				}
				time.Sleep(time.Second) // its connections stand
			}
			before := spentBy(d.programs[0].Process.Pid)
			if err := m.round(ctx, times); err != nil {
				return fmt.Errorf("with flood %t: %w", load != nil, err)
			}
			times.cpu += spentBy(d.programs[0].Process.Pid) - before
			if load == nil {
				continue
			}
			if err := load.Wait(); err != nil {
				return fmt.Errorf("offering requests: %w", err)
			}
			var count floodCount
			_, said, _ := bytes.Cut(out.Bytes(), []byte("\n")) // each program says first what it is
			if err := json.Unmarshal(said, &count); err != nil {
				return fmt.Errorf("reading what was offered: %w", err)
			}
			offered.add(count)
		}
	}
	fmt.Printf("# %d rounds of %s each way; %d GETs and %d DHCP exchanges of known hosts a second; writes are on disk before they are acknowledged\n",
		pairs, floodRound, floodGets, floodDHCP)
	total := floodRound.Seconds() * float64(pairs)
	fmt.Printf("# quiet: %s, %.0f %% of a core\n# flood: %s, %.0f %% of a core\n", quiet, 100*quiet.cpu/total, flooded, 100*flooded.cpu/total)
	seconds := offered.Seconds
	fmt.Printf("FLOOD offered=%.0f refused=%.0f served=%.0f unanswered=%.0f unit=1/s get_p99=%.2f quiet_get_p99=%.2f unit=ms offer_p99=%.2f quiet_offer_p99=%.2f unit=ms "+
		"dhcp_p99=%.2f quiet_dhcp_p99=%.2f ratio=%.3f\n", float64(offered.Offered)/seconds, float64(offered.Refused)/seconds, float64(offered.Served)/seconds,
		float64(offered.Offered-offered.Refused-offered.Served)/seconds, percentile(flooded.get, 99), percentile(quiet.get, 99),
		percentile(flooded.offer, 99), percentile(quiet.offer, 99), percentile(flooded.lease, 99), percentile(quiet.lease, 99),
		percentile(flooded.lease, 99)/percentile(quiet.lease, 99))
	return nil
}

// startFlooded starts a daemon on the first core that serves its API and DHCP, with some hosts, and makes two logins.
func startFlooded(ctx context.Context, program, dir string) (d *apiDoor, logins map[string]string, err error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, nil, err
	}
	data, config := filepath.Join(dir, "data"), filepath.Join(dir, "metald.yaml")
	text := fmt.Sprintf(`apiVersion: %s
kind: %s
api: {listen: "127.0.0.1:%s"}
dhcp:
  interfaces:
  - {name: boot0, server: 172.29.0.1, subnet: 172.29.0.0/24, range: 172.29.0.100-172.29.0.199, besideOthers: true}
agents: {listen: "172.29.0.1:9443"}
boot: {listen: "172.29.0.1:80"}
log: {level: warn}
`, daemon.ConfigVersion, daemon.ConfigKind, ports[0])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, nil, err
	}
	d = &apiDoor{name: "metald"}
	if err := d.start("taskset", "-c", "0", program, "serve", "--config", config, "--data-dir", data); err != nil {
		return nil, nil, err
	}
	if err := d.connect(ctx, daemon.AdminKubeconfig(data)); err != nil {
		return nil, nil, err
	}
	for n := range floodHosts {
		host := benchHost(n)
		host.Spec.Online = false
		body, err := json.Marshal(host)
		if err != nil {
			return nil, nil, errors.Join(err, d.stop())
		}
		if out, err := d.client.Post().AbsPath(apiPath).SetHeader("Content-Type", "application/json").Body(body).DoRaw(ctx); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("creating %s: %w: %.300s", host.Name, err, out), d.stop())
		}
	}
	logins = map[string]string{}
	for _, name := range []string{"flood", "other"} {
		out, err := exec.CommandContext(ctx, program, "kubeconfig", "--data-dir", data, "--user", name, "--group", "metald:viewers").Output()
		if err != nil {
			return nil, nil, errors.Join(err, d.stop())
		}
		logins[name] = filepath.Join(dir, name+".kubeconfig")
		if err := os.WriteFile(logins[name], out, 0o600); err != nil {
			return nil, nil, errors.Join(err, d.stop())
		}
	}
	return d, logins, nil
}
