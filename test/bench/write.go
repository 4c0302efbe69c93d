// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/disk"
	"metald.io/metald/test/lab/rack"
)

const (
	writeSize  = int64(4) << 30 // bytes, unpacked
	writeSmall = int64(1) << 30 // where the disk has no room for that
	writeBlock = 1 << 20
)

// image is a compressed disk image that the bench serves.
type image struct {
	url, sum string
	size     int64 // unpacked
}

// writing is one way to bring an image to a block device.
type writing struct {
	name string
	run  func(ctx context.Context, from image, device string) error
	rate []float64 // MB/s
	cpu  []float64 // s
}

// writeDisk measures the agent's writer, with its digest, its flush and its reading back, beside a pipe of programs that
// neither checks nor reads back, and beside one thread that does all in turn, as Ironic's agent.
func writeDisk(ctx context.Context, _ *rack.Rack, pairs int) (err error) {
	if os.Getuid() != 0 {
		return errors.New("a loop device needs root")
	}
	dir, err := os.MkdirTemp("", "metald-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	size := writeSize
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("asking for free space: %w", err)
	}
	if free := int64(stat.Bavail) * stat.Bsize; free < 4*size {
		size = writeSmall
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	var dense, sparse image
	for _, i := range []struct {
		to    *image
		name  string
		share float64
	}{{&dense, "dense.raw.zst", 1}, {&sparse, "sparse.raw.zst", 0.1}} {
		if *i.to, err = makeImage(filepath.Join(dir, i.name), size, i.share); err != nil {
			return err
		}
		i.to.url = server.URL + "/" + i.name
	}
	device, err := loopDevice(ctx, filepath.Join(dir, "disk"), size+(64<<20))
	if err != nil {
		return err
	}
	defer func() {
		_, derr := command(context.WithoutCancel(ctx), "losetup", "--detach", device)
		err = errors.Join(err, derr)
	}()
	var behind []float64
	metaldRun := func(ctx context.Context, from image, device string) error {
		verifying, err := writeMetald(ctx, from, device)
		behind = append(behind, verifying.Seconds())
		return err
	}
	ways := []*writing{{name: "metald", run: metaldRun}, {name: "curl | zstd -d | dd", run: writePipe}, {name: "one thread", run: writeLoop}}
	thin := &writing{name: "metald, a tenth of it data", run: func(ctx context.Context, from image, device string) error {
		_, err := writeMetald(ctx, from, device)
		return err
	}}
	for range pairs {
		for _, w := range ways {
			if err := w.once(ctx, dense, device); err != nil {
				return err
			}
		}
		if err := thin.once(ctx, sparse, device); err != nil {
			return err
		}
	}
	for _, w := range append(ways, thin) {
		low, high := interval(w.rate)
		fmt.Printf("# %s: %.0f MB/s (%.0f to %.0f), %.2f s of CPU a GB\n", w.name, median(w.rate), low, high, median(w.cpu)/float64(size)*1e9)
	}
	metald, peer := median(ways[0].rate), median(ways[1].rate)
	fmt.Printf("# of metald's time, %.2f s of %.2f s go into reading back\n", median(behind), float64(size)/metald/1e6)
	fmt.Printf("# over one thread (fetch, unpack, SHA-256, write, fsync): %.2f\n", metald/median(ways[2].rate))
	fmt.Printf("# time of the sparse image over the dense one's: %.3f\n", metald/median(thin.rate))
	fmt.Printf("# %d MiB unpacked, zstd, loop device with direct I/O, %d rounds; metald: SHA-256, flush and all read back; peer: curl | zstd -d |"+
		" dd oflag=direct conv=fsync, nothing checked\n", size>>20, pairs)
	fmt.Printf("BENCH P9 metald=%.0f peer=%.0f ratio=%.3f unit=MB/s\n", metald, peer, metald/peer)
	return nil
}

// once empties the device, writes it and takes the time.
func (w *writing) once(ctx context.Context, from image, device string) error {
	if _, err := command(ctx, "blkdiscard", device); err != nil {
		return err
	}
	unix.Sync()
	cpu, start := spent(), time.Now()
	if err := w.run(ctx, from, device); err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	took := time.Since(start).Seconds()
	w.rate = append(w.rate, float64(from.size)/took/1e6)
	w.cpu = append(w.cpu, spent()-cpu)
	return nil
}

// spent is the CPU time in seconds of this program and its children that ended.
func spent() float64 {
	var sum float64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		}
	}
	return sum
}

// writeMetald also says how long the reading back took.
func writeMetald(ctx context.Context, from image, device string) (time.Duration, error) {
	size, err := command(ctx, "blockdev", "--getsize64", device)
	if err != nil {
		return 0, err
	}
	bytes, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the device's size: %w", err)
	}
	var verifying time.Time
	_, err = disk.Install(ctx, disk.Options{
		Device: device, Seen: v1alpha1.DiskFacts{SerialNumber: "bench", SizeBytes: bytes},
		Plan: v1alpha1.InstallPlan{
			ID: "2c6f3f0e-3a4e-4a35-9d0c-5a2f7f4a9b11", Disk: v1alpha1.DiskTarget{SerialNumber: "bench", SizeBytes: bytes},
			Raw: &v1alpha1.RawImage{URL: from.url, Checksum: from.sum, ChecksumType: "sha256"},
		},
		Source: &disk.HTTP{Client: http.DefaultClient},
		Progress: func(p v1alpha1.StepProgress) {
			if p.Done == 0 && strings.HasPrefix(p.Doing, "verifying") {
				verifying = time.Now()
			}
		},
	})
	return time.Since(verifying), err
}

func writePipe(ctx context.Context, from image, device string) error {
	_, err := command(ctx, "bash", "-c", `set -o pipefail; curl -sSf "$0" | zstd -dcq | dd of="$1" bs=4M iflag=fullblock oflag=direct conv=fsync status=none`,
		from.url, device)
	return err
}

// writeLoop does one thing after the other.
func writeLoop(ctx context.Context, from image, device string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	unpacked, err := zstd.NewReader(io.TeeReader(resp.Body, sum), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer unpacked.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{unpacked}, make([]byte, writeBlock)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != from.sum {
		return fmt.Errorf("SHA-256 is %s, want %s", got, from.sum)
	}
	return f.Sync()
}

// makeImage writes a compressed image of size bytes: a share of it in runs of 16 MiB holds data, half of it noise and half of it
// what compresses well, as in an operating system's image.
func makeImage(path string, size int64, share float64) (image, error) {
	f, err := os.Create(path)
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	sum := sha256.New()
	w, err := zstd.NewWriter(io.MultiWriter(f, sum))
	if err != nil {
		return image{}, err
	}
	random := rand.NewChaCha8([32]byte{9})
	block, empty := make([]byte, writeBlock), make([]byte, writeBlock)
	for at := int64(0); at < size; at += writeBlock {
		b := empty
		if run := at / (16 << 20); float64(run%10) < 10*share {
			b = block
			_, _ = random.Read(b[:writeBlock/2]) // never fails
			for n := writeBlock / 2; n < writeBlock; n += 64 {
				copy(b[n:], fmt.Sprintf("%-48d%016x", n, at))
			}
		}
		if _, err := w.Write(b); err != nil {
			return image{}, err
		}
	}
	if err := errors.Join(w.Close(), f.Sync()); err != nil {
		return image{}, err
	}
	return image{size: size, sum: hex.EncodeToString(sum.Sum(nil))}, nil
}

func loopDevice(ctx context.Context, path string, size int64) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return "", err
	}
	return command(ctx, "losetup", "--find", "--show", "--direct-io=on", path)
}

// command runs a program and returns what it says.
func command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("running %s: %w: %s", name, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
