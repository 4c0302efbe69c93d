// SPDX-License-Identifier: Apache-2.0

package network

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// leaseFile is systemd 252's, word for word but for the addresses.
const leaseFile = `# This is private data. Do not parse.
ADDRESS=172.22.0.101
NETMASK=255.255.255.0
ROUTER=172.22.0.1
SERVER_ADDRESS=172.22.0.1
T1=300
T2=525
LIFETIME=600
HOSTNAME=r1n01
CLIENTID=01525400aa0001
OPTION_224=687474703a2f2f3137322e32322e302e31
OPTION_225=68747470733a2f2f3137322e32322e302e313a383434332f
`

func TestTold(t *testing.T) {
	for _, test := range []struct {
		name   string
		leases map[string]string
		found  bool
		err    string
	}{
		{"no lease yet", nil, false, ""},
		{"the daemon's", map[string]string{"3": leaseFile}, true, ""},
		{"the daemon's among others", map[string]string{"2": "ADDRESS=10.0.0.7\n", "3": leaseFile}, true, ""},
		{"another server's", map[string]string{"2": "ADDRESS=10.0.0.7\n"}, false, ""},
		{"a daemon that takes no agents", map[string]string{"3": "OPTION_224=687474703a2f2f78\nOPTION_225=\n"}, false, ""},
		{"plain HTTP", map[string]string{"3": "OPTION_225=687474703a2f2f78\n"}, false, "OPTION_225: \"http://x\" is no https URL"},
		{"no hex", map[string]string{"3": "OPTION_225=https://x\n"}, false, "OPTION_225 is not hex"},
		{"a device that is gone", map[string]string{"9": leaseFile}, false, "no network device 9"},
	} {
		root := t.TempDir()
		files := map[string]string{
			"sys/class/net/eth0/ifindex": "2\n", "sys/class/net/eth0/address": "52:54:00:aa:00:02\n",
			"sys/class/net/eth1/ifindex": "3\n", "sys/class/net/eth1/address": "52:54:00:aa:00:01\n",
		}
		for index, text := range test.leases {
			files["run/systemd/netif/leases/"+index] = text
		}
		for name, text := range files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, found, err := Told(root)
		if found != test.found || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: found %t, error %v, want %t and %q", test.name, found, err, test.found, test.err)
		}
		if !found {
			continue
		}
		if got.Device != "eth1" || got.MAC.String() != "52:54:00:aa:00:01" || got.BootURL != "http://172.22.0.1" || got.AgentURL != "https://172.22.0.1:8443" {
			t.Errorf("%s: got %+v", test.name, got)
		}
	}
}
