// SPDX-License-Identifier: Apache-2.0

package configdrive

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	diskfile "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/google/go-cmp/cmp"
)

var host = Host{UUID: "a9197aee-faf1-48bb-946d-7a886e38c560", Namespace: "metal", Name: "r1n01"}

// read opens a drive with another program's reader.
func read(t *testing.T, drive []byte, path string) (string, bool) {
	t.Helper()
	f := writeFile(t, drive)
	iso, err := iso9660.Read(diskfile.New(f, true), int64(len(drive)), 0, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(iso.Label()); got != Label {
		t.Errorf("label %q, want %q", got, Label)
	}
	file, err := iso.OpenFile(path, 0)
	if err != nil && strings.Contains(err.Error(), "does not exist") {
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), true
}

func TestBuild(t *testing.T) {
	base := map[string]any{
		"uuid": host.UUID, "name": "r1n01", "metal3-namespace": "metal", "metal3-name": "r1n01", "local-hostname": "r1n01", "local_hostname": "r1n01",
	}
	with := func(more map[string]any) map[string]any {
		all := map[string]any{}
		for _, m := range []map[string]any{base, more} {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	for _, c := range []struct {
		name    string
		data    Data
		meta    map[string]any
		network string // as JSON, empty for no file
	}{
		{"nothing given", Data{}, base, ""},
		{"all of it", Data{
			Meta: []byte("local-hostname: other\nproject:\n  id: 7\n"), User: []byte("#cloud-config\n\xff\x00"), Network: []byte("links:\n- id: eth0\n  mtu: 9000\n"),
		}, with(map[string]any{"local-hostname": "other", "project": map[string]any{"id": 7.0}}), `{"links":[{"id":"eth0","mtu":9000}]}`},
		{"JSON", Data{Meta: []byte(`{"a":"b"}`), Network: []byte(`{"services":[]}`), User: bytes.Repeat([]byte("long "), 50_000)},
			with(map[string]any{"a": "b"}), `{"services":[]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			drive, err := Build(host, c.data)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Build(host, c.data)
			if err != nil || !bytes.Equal(drive, again) {
				t.Errorf("the same data give other bytes (%v)", err)
			}
			for _, version := range versions {
				dir := "/openstack/" + version + "/"
				text, ok := read(t, drive, dir+"meta_data.json")
				var meta map[string]any
				if err := json.Unmarshal([]byte(text), &meta); err != nil || !ok {
					t.Fatalf("%smeta_data.json: %v in %q", dir, err, text)
				}
				if diff := cmp.Diff(c.meta, meta); diff != "" {
					t.Errorf("meta_data.json (-want +got):\n%s", diff)
				}
				if got, ok := read(t, drive, dir+"network_data.json"); got != c.network || ok != (c.network != "") {
					t.Errorf("network_data.json %q, want %q", got, c.network)
				}
				if got, ok := read(t, drive, dir+"user_data"); got != string(c.data.User) || ok != (c.data.User != nil) {
					t.Errorf("user_data has %d bytes, want %d", len(got), len(c.data.User))
				}
			}
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		data Data
		text string
	}{
		{"meta data that is no mapping", Data{Meta: []byte("- a\n")}, "metaData"},
		{"meta data that is nothing", Data{Meta: []byte("null")}, "no mapping"},
		{"network data that is no YAML", Data{Network: []byte("a: [")}, "networkData"},
		{"user data too long", Data{User: make([]byte, MaxSize)}, "at most 64"},
	} {
		if _, err := Build(host, c.data); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.text)
		}
	}
}
