// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// peerPackages are the programs that a benchmark measures beside, with the libraries that Debian's base lacks. They come
// with services, so they are unpacked below the build directory and never installed.
var peerPackages = []string{
	"dnsmasq-base", "nginx", "libdbus-1-3", "libgmp10", "libhogweed6", "libidn2-0", "libjansson4", "libmnl0",
	"libnetfilter-conntrack3", "libnettle8", "libnfnetlink0", "libnftables1", "libnftnl11", "libpcre2-8-0", "libunistring2", "libxtables12",
}

// Peers unpacks the peers' packages, once.
func (r *Rack) Peers(ctx context.Context) error {
	dir := filepath.Join(r.Cache, "peers")
	if _, err := os.Stat(filepath.Join(dir, ".done")); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("unpacking the peers: %w", err)
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "download"}, peerPackages...)...)
	cmd.Dir = dir
	if err := r.progress(cmd, ""); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := output(exec.CommandContext(ctx, "dpkg-deb", "-x", deb, filepath.Join(dir, "root"))); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, ".done"), nil, 0o644)
}

// StartPeers serves one boot file and one root by dnsmasq and nginx, as a person would by hand: every HTTP boot client of
// the bridge gets the same answer. The agent in the image's initramfs finds the root's server in DHCP option 224.
func (r *Rack) StartPeers(ctx context.Context, image string) error {
	described, err := readImage(image)
	if err != nil {
		return err
	}
	spec := described.Spec
	www := r.Path("peers", "www")
	for name, file := range map[string]string{"image.efi": spec.UKI.SHA256, "root.img": spec.Root.SHA256} {
		at := filepath.Join(www, "boot", file, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return fmt.Errorf("laying out the peer's files: %w", err)
		}
		os.Remove(at)
		if err := os.Symlink(filepath.Join(image, name), at); err != nil {
			return fmt.Errorf("laying out the peer's files: %w", err)
		}
	}
	conf := r.Path("peers", "nginx.conf")
	text := fmt.Sprintf("daemon off; user root; worker_processes 1; pid %s; events {}\nhttp { access_log off; sendfile on; tcp_nopush on; "+
		"client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5; "+
		"server { listen %s; root %s; } }\n", r.Path("peers", "nginx.pid"), MetaldBoot, www)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return fmt.Errorf("laying out the peer's files: %w", err)
	}
	root := filepath.Join(r.Cache, "peers", "root")
	env := []string{"LD_LIBRARY_PATH=" + filepath.Join(root, "usr/lib/x86_64-linux-gnu") + ":" + filepath.Join(root, "lib/x86_64-linux-gnu")}
	base := "http://" + Gateway
	peers := []process{
		{name: "nginx", env: env, argv: []string{filepath.Join(root, "usr/sbin/nginx"), "-p", r.Path("peers"), "-e", "stderr", "-c", conf}},
		{name: "dnsmasq", env: env, argv: []string{filepath.Join(root, "usr/sbin/dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--user=root",
			"--port=0", "--interface=" + Bridge, "--bind-dynamic", "--no-ping", "--dhcp-authoritative",
			"--dhcp-range=" + RangeFirst + "," + RangeLast + ",255.255.255.0,1h", "--dhcp-leasefile=" + r.Path("peers", "leases"), "--pid-file=" + r.Path("peers", "dnsmasq.pid"),
			"--dhcp-match=set:http,option:client-arch,16", "--dhcp-option-force=tag:http,60,HTTPClient",
			"--dhcp-boot=tag:http," + base + "/boot/" + spec.UKI.SHA256 + "/image.efi",
			"--dhcp-option-force=224," + base, "--log-facility=-"}},
	}
	for _, p := range peers {
		if err := r.start(p); err != nil {
			return err
		}
	}
	return r.await(ctx, "nginx", 10*time.Second, func(ctx context.Context) error {
		cmd := r.Inside(ctx, r.Program("lab"), "get", base+"/boot/"+spec.UKI.SHA256+"/image.efi")
		cmd.Env = append(os.Environ(), "LAB_METHOD=HEAD")
		_, err := output(cmd)
		return err
	})
}

// StopPeers ends them.
func (r *Rack) StopPeers() error {
	return errors.Join(r.Stop("dnsmasq", 5*time.Second), r.Stop("nginx", 5*time.Second))
}

// NodeReady waits until the cluster calls a Node Ready and returns when that was seen. It watches, since polling would
// take the processor that the emulated machine needs.
func (r *Rack) NodeReady(ctx context.Context, name string) (time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := r.Kubectl(ctx, "get", "nodes", "--watch", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return time.Time{}, fmt.Errorf("watching the nodes: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return time.Time{}, fmt.Errorf("watching the nodes: %w", err)
	}
	defer cmd.Wait()
	defer cancel()
	for decoder := json.NewDecoder(bufio.NewReader(out)); ; {
		var node corev1.Node
		if err := decoder.Decode(&node); err != nil {
			return time.Time{}, fmt.Errorf("watching the nodes: %w", errors.Join(err, ctx.Err()))
		}
		if node.Name != name {
			continue
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return time.Now(), nil
			}
		}
	}
}

// PowerOnTimes reads from a BMC's log when its machine was told to switch on, oldest first.
func (r *Rack) PowerOnTimes(name string) ([]time.Time, error) {
	spec, err := r.SpecOf(name)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(r.Log(spec.switchName()))
	if err != nil {
		return nil, fmt.Errorf("reading the BMC's log: %w", err)
	}
	var times []time.Time
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.Contains(line, `msg="power on"`) {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse("2006-01-02T15:04:05.999Z07:00", stamp)
		if err != nil {
			return nil, fmt.Errorf("reading the BMC's log: %w", err)
		}
		times = append(times, at)
	}
	return times, nil
}
