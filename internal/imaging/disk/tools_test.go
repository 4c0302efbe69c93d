// SPDX-License-Identifier: Apache-2.0

//go:build long

package disk

import (
	"bytes"
	"crypto/md5"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
)

// tool runs a program of Debian's that judges what this package wrote: gdisk, dosfstools, mtools, util-linux.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: install gdisk, dosfstools, mtools, util-linux and e2fsprogs", err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// server serves a shelf's files as the boot server does, over a real connection.
func (s *shelf) server(t *testing.T) *HTTP {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := s.files[strings.Split(r.URL.Path, "/")[2]]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(server.Close)
	return &HTTP{Client: server.Client(), Base: server.URL}
}

// blank is a sparse file in place of a disk.
func blank(t *testing.T, size int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestOtherProgramsAgree installs over HTTP on a file and asks gdisk, fsck.vfat and mtools what they see.
func TestOtherProgramsAgree(t *testing.T) {
	s, disk := newSample(lab), blank(t, lab)
	o := Options{
		Device: disk, Seen: v1alpha1.DiskFacts{SerialNumber: "S1", SizeBytes: lab}, Plan: s.plan, Source: s.shelf.server(t), Architecture: "amd64",
	}
	if got, err := Install(t.Context(), o); err != nil || got.AlreadyThere {
		t.Fatalf("%+v, error %v", got, err)
	}
	if out := tool(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v says %s", out)
	}
	out := tool(t, "sfdisk", "--dump", disk)
	for _, want := range []string{
		`type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709`, `type=2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5`, `type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B`,
		`name="root-b-verity"`, `name="metald-state"`, `attrs="GUID:60,63"`, "label-id: " + strings.ToUpper(s.plan.ID),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("sfdisk --dump does not say %s:\n%s", want, out)
		}
	}
	esp := filepath.Join(t.TempDir(), "esp")
	cut(t, disk, esp, mib, espSize)
	t.Log(tool(t, "fsck.vfat", "-n", "-v", esp))
	for path, want := range map[string][]byte{LoaderPath: s.loader, Entry(SlotA): s.uki, LoaderConfig: []byte(loaderConf)} {
		copied := filepath.Join(t.TempDir(), "copied")
		tool(t, "mcopy", "-i", esp, "::"+path, copied)
		if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, want) {
			t.Errorf("mcopy of %s differs (%v)", path, err)
		}
	}
	// What another program does to the file system is read: the agent takes the counter away, firmware adds files.
	tool(t, "mren", "-i", esp, "::"+Entry(SlotA), "::/EFI/Linux/metald-a+1-2.efi")
	tool(t, "mcopy", "-i", esp, "tools_test.go", "::/EFI/Linux/another name.txt")
	cut(t, esp, disk, 0, espSize)
	if got, err := Install(t.Context(), o); err != nil || !got.AlreadyThere {
		t.Errorf("after mtools: %+v, error %v, want that it was there", got, err)
	}
	tool(t, "mdel", "-i", esp, "::/EFI/Linux/metald-a+1-2.efi")
	cut(t, esp, disk, 0, espSize)
	if got, err := Install(t.Context(), o); err != nil || got.AlreadyThere {
		t.Errorf("without its entry: %+v, error %v, want that it was written", got, err)
	}
}

// cut copies n bytes between a disk and a file of its ESP.
func cut(t *testing.T, from, to string, off, n int64) {
	t.Helper()
	args := []string{"if=" + from, "of=" + to, "bs=1M", "conv=notrunc,sparse", "count=" + strconv.FormatInt(n/mib, 10)}
	if off > 0 {
		args = append(args, "skip="+strconv.FormatInt(off/mib, 10))
	} else {
		args = append(args[:3], "conv=notrunc", args[4], "seek=1")
	}
	tool(t, "dd", args...)
}

// TestOtherProgramsAgreeOnRaw adds a config drive to images that sfdisk made.
func TestOtherProgramsAgreeOnRaw(t *testing.T) {
	for _, label := range []string{"gpt", "dos"} {
		image := blank(t, 16*mib)
		cmd := exec.Command("sfdisk", image)
		cmd.Stdin = strings.NewReader("label: " + label + "\n2048,8192,L\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sfdisk: %v\n%s", err, out)
		}
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		p := rawPlan("x.raw", b, md5.New(), "md5", noise(1, 400_000))
		disk := blank(t, rawDiskSize)
		if _, err := Install(t.Context(), Options{
			Device: disk, Seen: v1alpha1.DiskFacts{SerialNumber: "S1", SizeBytes: rawDiskSize}, Plan: p.plan, Source: p.shelf,
		}); err != nil {
			t.Fatal(err)
		}
		if label == "gpt" {
			if out := tool(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v says %s", out)
			}
		}
		if out := tool(t, "sfdisk", "--verify", disk); !strings.Contains(out, "No errors detected") {
			t.Errorf("sfdisk --verify says %s", out)
		}
		if out := tool(t, "sfdisk", "--dump", disk); strings.Count(out, "start=") != 2 || label == "gpt" && !strings.Contains(out, `name="config-2"`) {
			t.Errorf("sfdisk --dump says\n%s", out)
		}
	}
}

// TestBlockDevice installs on a loop device past the page cache, and is refused while somebody uses it. It needs root.
func TestBlockDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test needs root, for a loop device")
	}
	s := newSample(lab)
	file := blank(t, lab)
	device := strings.TrimSpace(tool(t, "losetup", "--find", "--show", "--direct-io=on", file))
	defer tool(t, "losetup", "--detach", device)
	o := Options{
		Device: device, Seen: v1alpha1.DiskFacts{SerialNumber: "S1", SizeBytes: lab}, Plan: s.plan, Source: s.shelf, Architecture: "amd64",
	}
	got, err := Install(t.Context(), o)
	if err != nil || got.AlreadyThere {
		t.Fatalf("%+v, error %v", got, err)
	}
	if out := tool(t, "sgdisk", "-v", device); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v says %s", out)
	}
	if got, err = Install(t.Context(), o); err != nil || !got.AlreadyThere {
		t.Errorf("again: %+v, error %v, want that it was there", got, err)
	}
	tool(t, "mkfs.ext4", "-q", "-F", device, "65536")
	dir := t.TempDir()
	tool(t, "mount", device, dir)
	_, err = Install(t.Context(), o)
	tool(t, "umount", dir)
	if err == nil || !strings.Contains(err.Error(), "is mounted on "+dir) {
		t.Errorf("error %v, want that it is mounted on %s", err, dir)
	}
	ro := strings.TrimSpace(tool(t, "losetup", "--find", "--show", "--read-only", file))
	defer tool(t, "losetup", "--detach", ro)
	o.Device = ro
	if _, err := Install(t.Context(), o); err == nil {
		t.Error("no error from a read-only disk")
	} else {
		t.Log(err)
	}
}
