// SPDX-License-Identifier: Apache-2.0

//go:build long

package configdrive

import (
	"os/exec"
	"strings"
	"testing"
)

// TestIsoinfoAgrees asks Debian's genisoimage package what it sees, with Rock Ridge and without.
func TestIsoinfoAgrees(t *testing.T) {
	drive, err := Build(host, Data{User: []byte("hello"), Network: []byte("a: b")})
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, drive).Name()
	for _, c := range []struct{ args, want string }{
		{"-d", "Volume id: config-2"},
		{"-d", "Rock Ridge signatures version 1 found"},
		{"-R -x /openstack/latest/user_data", "hello"},
		{"-R -x /openstack/latest/network_data.json", `{"a":"b"}`},
		{"-R -f", "/openstack/2012-08-10/meta_data.json\n"},
		{"-f", "/openstack/latest/meta_data.json;1\n"},
	} {
		out, err := exec.Command("isoinfo", append(strings.Fields(c.args), "-i", file)...).CombinedOutput()
		if err != nil {
			t.Fatalf("isoinfo (install genisoimage): %v\n%s", err, out)
		}
		if !strings.Contains(string(out), c.want) {
			t.Errorf("isoinfo %s says %q, want %q in it", c.args, out, c.want)
		}
	}
}
