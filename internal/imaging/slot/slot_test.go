// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

const esp = "01234567-89ab-cdef-0123-456789abcdef"

// variables writes text variables as efivarfs shows them.
func variables(t *testing.T, values map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, value := range values {
		b := []byte{6, 0, 0, 0} // boot services and runtime access, volatile
		for _, u := range utf16.Encode([]rune(value + "\x00")) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		if err := os.WriteFile(filepath.Join(dir, name+"-"+loaderVendor), b, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBooted(t *testing.T) {
	upper := strings.ToUpper(esp)
	for _, test := range []struct {
		name   string
		values map[string]string
		want   Boot
		disk   bool
	}{
		{"by BIOS", nil, Boot{}, false},
		{"over HTTP", map[string]string{"LoaderImageIdentifier": `\metald-a.efi`}, Boot{}, false},
		{"on trial", map[string]string{
			"LoaderDevicePartUUID": upper, "LoaderImageIdentifier": `\EFI\BOOT\BOOTX64.EFI`, "LoaderEntrySelected": "metald-b+3.efi",
			"LoaderBootCountPath": `\EFI\Linux\metald-b+2-1.efi`,
		}, Boot{Slot: "b", ESP: esp, Entry: Entry{Slot: "b", Counted: true, Left: 2, Done: 1}}, true},
		{"known to be good", map[string]string{
			"LoaderDevicePartUUID": upper, "LoaderImageIdentifier": `\EFI\BOOT\BOOTX64.EFI`, "LoaderEntrySelected": "METALD-A.EFI",
		}, Boot{Slot: "a", ESP: esp, Entry: Entry{Slot: "a"}}, true},
		{"by the stub alone", map[string]string{
			"LoaderDevicePartUUID": upper, "LoaderImageIdentifier": `\EFI\Linux\metald-a.efi`,
		}, Boot{Slot: "a", ESP: esp, Entry: Entry{Slot: "a"}}, true},
		{"from a stick of somebody's", map[string]string{
			"LoaderDevicePartUUID": upper, "LoaderImageIdentifier": `\EFI\BOOT\BOOTX64.EFI`,
		}, Boot{}, false},
	} {
		got, disk, err := Booted(variables(t, test.values))
		if diff := cmp.Diff(test.want, got); diff != "" || disk != test.disk || err != nil {
			t.Errorf("%s: from disk %t, %v (-want +got):\n%s", test.name, disk, err, diff)
		}
	}
	if _, _, err := Booted(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("no firmware variables at all: %v", err)
	}
	dir := variables(t, nil)
	if err := os.WriteFile(filepath.Join(dir, "LoaderDevicePartUUID-"+loaderVendor), []byte{6, 0, 0}, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, disk, err := Booted(dir); err == nil || disk {
		t.Errorf("a variable cut short: from disk %t, %v", disk, err)
	}
}

func TestParseEntry(t *testing.T) {
	for _, test := range []struct {
		name     string
		want     Entry
		ok       bool
		bootable bool
	}{
		{"metald-a.efi", Entry{Slot: "a"}, true, true},
		{"metald-b+3.efi", Entry{Slot: "b", Counted: true, Left: 3}, true, true},
		{"metald-a+1-2.efi", Entry{Slot: "a", Counted: true, Left: 1, Done: 2}, true, true},
		{"metald-a+0-3.efi", Entry{Slot: "a", Counted: true, Done: 3}, true, false},
		{"metald-a+0.efi", Entry{Slot: "a", Counted: true}, true, false},
		{"metald-c.efi", Entry{}, false, true},
		{"metald-a+-1.efi", Entry{}, false, true},
		{"metald-a+99999.efi", Entry{}, false, true},
		{"metald-a.efi.bak", Entry{}, false, true},
		{"other.efi", Entry{}, false, true},
		{"", Entry{}, false, true},
	} {
		got, ok := ParseEntry(test.name)
		if got != test.want || ok != test.ok || got.Bootable() != test.bootable {
			t.Errorf("%s: got %+v, %t, bootable %t", test.name, got, ok, got.Bootable())
		}
		if ok && got.Name() != test.name {
			t.Errorf("%s: its name is %s", test.name, got.Name())
		}
	}
}

// partition makes a folder with entries as an EFI system partition has them.
func partition(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "EFI/Linux"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(dir, "EFI/Linux", n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func names(t *testing.T, esp string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(esp, "EFI/Linux"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestBless(t *testing.T) {
	for _, test := range []struct {
		have, want string
		changed    bool
		err        string
	}{
		{"metald-a+2-1.efi metald-b+3.efi other.efi", "metald-a.efi metald-b+3.efi other.efi", true, ""},
		{"metald-a+0-3.efi", "metald-a.efi", true, ""},
		{"metald-a.efi", "metald-a.efi", false, ""},
		{"metald-a+2-1.efi metald-a.efi", "metald-a.efi", true, ""}, // power was lost in an earlier blessing
		{"metald-b.efi", "metald-b.efi", false, "there is none"},
	} {
		dir := partition(t, strings.Fields(test.have)...)
		changed, err := Bless(dir, "a")
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) || changed != test.changed {
			t.Errorf("%s: changed %t, error %v, want %q", test.have, changed, err, test.err)
		}
		if got := names(t, dir); got != test.want {
			t.Errorf("%s: became %s, want %s", test.have, got, test.want)
		}
	}
	if _, err := Bless(t.TempDir(), "a"); err == nil {
		t.Error("a partition with no entries at all was blessed")
	}
}

func TestTurn(t *testing.T) {
	for _, test := range []struct {
		have, want, other string
	}{
		{"metald-a+2-1.efi metald-b.efi", "metald-a+0-1.efi metald-b.efi", "b"},
		{"metald-a.efi metald-b+3.efi", "metald-a+0.efi metald-b+3.efi", "b"},
		// With nothing better to boot, this slot's entry stays as it is.
		{"metald-a+2-1.efi", "metald-a+2-1.efi", ""},
		{"metald-a.efi metald-b+0-3.efi", "metald-a.efi metald-b+0-3.efi", ""},
	} {
		dir := partition(t, strings.Fields(test.have)...)
		other, err := Turn(dir, "a")
		if err != nil || other != test.other {
			t.Errorf("%s: the turn goes to %q, %v, want %q", test.have, other, err, test.other)
		}
		if got := names(t, dir); got != test.want {
			t.Errorf("%s: became %s, want %s", test.have, got, test.want)
		}
		if entries, err := Entries(dir); err != nil || len(entries) != len(strings.Fields(test.have)) {
			t.Errorf("%s: has entries %v, %v", test.have, entries, err)
		}
	}
}

func TestFstab(t *testing.T) {
	want := `# Written at this boot: the machine was started from its disk.
/dev/disk/by-partuuid/` + esp + ` /var ext4 noatime,nosuid,nodev,x-systemd.makefs,x-systemd.device-timeout=90s 0 2
tmpfs /tmp tmpfs mode=1777,nosuid,nodev,size=20% 0 0
`
	if diff := cmp.Diff(want, Fstab(esp)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
