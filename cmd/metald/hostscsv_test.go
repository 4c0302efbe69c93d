// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const csvHead = "name,bmc_address,bmc_username,bmc_password,boot_mac"

// told is a row in short, as a test can write it down.
func told(r hostRow) string {
	if r.problem != nil {
		return fmt.Sprintf("%d error: %v", r.line, r.problem)
	}
	return fmt.Sprintf("%d %s/%s %s %s:%s %s %v %v %s", r.line, r.namespace, r.name, r.bmcAddress, r.username, r.Password.Reveal(), r.bootMAC,
		r.labels(), r.annotations(), r.architecture)
}

func TestReadHosts(t *testing.T) {
	const sound = "r1n01,redfish://10.0.0.5,admin,pw,52:54:00:00:00:01"
	cert := strings.Repeat("ab", 32)
	tests := []struct {
		name, file string
		want       []string
	}{
		{"one", csvHead + "\n" + sound, []string{"2 default/r1n01 redfish://10.0.0.5 admin:pw 52:54:00:00:00:01 map[] map[] "}},
		{"columns in another order, with a mark and spaces", "\ufeffBoot_MAC , name,bmc_password,bmc_username,bmc_address\n52-54-00-00-00-01,r1n01, p w ,admin,redfish://10.0.0.5\n",
			[]string{"2 default/r1n01 redfish://10.0.0.5 admin:p w  52:54:00:00:00:01 map[] map[] "}},
		{"comments and quotes", "# a list\n" + csvHead + "\n# the first\nr1n01,redfish://10.0.0.5,admin,\"p,\"\"w#\",52:54:00:00:00:01\n",
			[]string{`4 default/r1n01 redfish://10.0.0.5 admin:p,"w# 52:54:00:00:00:01 map[] map[] `}},
		{"all columns", csvHead + ",namespace,zone,region,rack,bmc_certificate_sha256,architecture,serial_number\n" + sound + ",racks,z1,eu,r1," + strings.ToUpper(cert) + ",arm64,CZ 1/2\n",
			[]string{"2 racks/r1n01 redfish://10.0.0.5 admin:pw 52:54:00:00:00:01 map[metald.io/rack:r1 topology.kubernetes.io/region:eu topology.kubernetes.io/zone:z1]" +
				" map[metald.io/bmc-certificate-sha256:" + cert + " metald.io/serial-number:CZ 1/2] aarch64"}},
		{"IPMI and what it does not have", csvHead + ",bmc_certificate_sha256\n" +
			"r1n01,ipmi://10.0.0.1,admin,12345678901234567890,52:54:00:00:00:01,\n" +
			"r1n02,ipmi://10.0.0.2:6230,admin,pw,52:54:00:00:00:02," + cert + "\n" +
			"r1n03,ipmi://10.0.0.3,admin,123456789012345678901,52:54:00:00:00:03,\n" +
			"r1n04,ipmi://10.0.0.4,a-user-of-17-chars,pw,52:54:00:00:00:04,\n" +
			"r1n05,redfish+http://10.0.0.5,admin,pw,52:54:00:00:00:05," + cert + "\n",
			[]string{
				"2 default/r1n01 ipmi://10.0.0.1 admin:12345678901234567890 52:54:00:00:00:01 map[] map[] ",
				"3 error: bmc_certificate_sha256: a BMC at ipmi://10.0.0.2:6230 shows no certificate",
				"4 error: bmc_password: IPMI has no passwords of more than 20 bytes",
				"5 error: bmc_username: IPMI has no user names of more than 16 bytes",
				"6 error: bmc_certificate_sha256: a BMC at redfish+http://10.0.0.5 shows no certificate",
			}},
		{"empty optional values", csvHead + ",namespace,zone\n" + sound + ",,\n",
			[]string{"2 default/r1n01 redfish://10.0.0.5 admin:pw 52:54:00:00:00:01 map[] map[] "}},
		{"faults of single rows", csvHead + ",architecture\n" +
			"R1N01,redfish://10.0.0.1,a,b,52:54:00:00:00:01,\n" +
			"r1n02,10.0.0.2,a,b,52:54:00:00:00:02,\n" +
			"r1n03,redfish://10.0.0.3,,b,52:54:00:00:00:03,\n" +
			"r1n04,redfish://10.0.0.4,a,,52:54:00:00:00:04,\n" +
			"r1n05,redfish://10.0.0.5,a,b,52:54:00:00:00,\n" +
			"r1n06,redfish://10.0.0.6,a,b,01:54:00:00:00:06,\n" +
			"r1n07,redfish://10.0.0.7,a,b,52:54:00:00:00:07,mips\n" +
			"r1n08,redfish://10.0.0.8,a,b,52:54:00:00:00:08\n" +
			"r1n09,redfish://10.0.0.9,a,b,52:54:00:00:00:09,\n",
			[]string{
				`2 error: name: "R1N01" cannot be a Node's name: want at most 63 lower-case letters, digits, '-' and '.'`,
				`3 error: bmc_address: parsing BMC address: "10.0.0.2" has no scheme or no host, expected redfish://HOST/redfish/v1/Systems/ID`,
				"4 error: bmc_username: must not be empty",
				"5 error: bmc_password: must not be empty",
				`6 error: boot_mac: "52:54:00:00:00" is not a MAC address`,
				"7 error: boot_mac: 01:54:00:00:00:06 is not the address of one machine",
				`8 error: architecture: "mips": want x86_64 or aarch64`,
				"9 error: 5 values, but 6 columns",
				"10 default/r1n09 redfish://10.0.0.9 a:b 52:54:00:00:00:09 map[] map[] ",
			}},
		{"twins are both refused", csvHead + ",namespace,serial_number\n" +
			"r1n01,redfish://10.0.0.1,a,b,52:54:00:00:00:01,,\n" +
			"r1n02,redfish://10.0.0.2,a,b,52:54:00:00:00:02,,\n" +
			"r1n03,redfish://10.0.0.3,a,b,52:54:00:00:00:02,,\n" +
			"r1n01,redfish://10.0.0.4,a,b,52:54:00:00:00:04,,\n" +
			"r1n05,redfish://10.0.0.5,a,b,52:54:00:00:00:05,,\n" +
			"r1n06,redfish://10.0.0.5,a,b,52:54:00:00:00:06,,\n" +
			"r1n06,redfish://10.0.0.7,a,b,52:54:00:00:00:07,elsewhere,\n" +
			"r1n07,https://10.0.0.8:443/,a,b,52:54:00:00:00:08,,SN-8\n" +
			"r1n08,redfish://10.0.0.8,a,b,52:54:00:00:00:09,,SN-9\n" +
			"r1n09,redfish://10.0.0.9,a,b,52:54:00:00:00:0a,,SN-A\n" +
			"r1n10,redfish://10.0.0.10,a,b,52:54:00:00:00:0b,,sn-a\n" +
			"r1n11,redfish://10.0.0.11,a,b,52:54:00:00:00:0c,,SN-A\n",
			[]string{
				"2 error: the same name as line 5 (r1n01)", "3 error: the same boot MAC as line 4 (r1n03)", "4 error: the same boot MAC as line 3 (r1n02)",
				"5 error: the same name as line 2 (r1n01)", "6 error: the same BMC address as line 7 (r1n06)", "7 error: the same BMC address as line 6 (r1n05)",
				"8 elsewhere/r1n06 redfish://10.0.0.7 a:b 52:54:00:00:00:07 map[] map[] ",
				"9 error: the same BMC address as line 10 (r1n08)", "10 error: the same BMC address as line 9 (r1n07)",
				"11 error: the same serial number as line 12 (r1n10)", "12 error: the same serial number as line 13 (r1n11)",
				"13 error: the same serial number as line 11 (r1n09)",
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := readHosts(strings.NewReader(tt.file), "default")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rows {
				got = append(got, told(r))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadHostsRefusesTheWholeFile(t *testing.T) {
	required := "bmc_address, bmc_password, bmc_username, boot_mac, name"
	tests := []struct{ name, file, want string }{
		{"empty", "", "the file is empty: want a first line with the columns bmc_address,bmc_password,bmc_username,boot_mac,name"},
		{"only a first line", csvHead + "\n", "the file holds no hosts, only a first line"},
		{"unknown column", csvHead + ",colour\na,b,c,d,e,f\n", `unknown column "colour": known are ` + required + ", architecture, bmc_certificate_sha256, namespace, rack, region, serial_number, zone"},
		{"column twice", csvHead + ",name\n", `column "name" is given twice`},
		{"column missing", "name,bmc_address,bmc_username,bmc_password\n", `column "boot_mac" is missing: required are ` + required},
		{"no first line", "r1n01,redfish://10.0.0.5,admin,pw,52:54:00:00:00:01\n", `unknown column "r1n01": known are ` + required + ", architecture, bmc_certificate_sha256, namespace, rack, region, serial_number, zone"},
		{"broken quotes", csvHead + "\nr1n01,\"redfish://10.0.0.5,admin,pw,52:54:00:00:00:01\n", `reading rows: parse error on line 2, column 54: extraneous or missing " in quoted-field`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readHosts(strings.NewReader(tt.file), "default")
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPasswordIsNeverPrinted(t *testing.T) {
	r := hostRow{name: "r1n01", Password: "hunter2"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(format, r); strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s printed the password: %s", format, got)
		}
	}
}

func FuzzReadHosts(f *testing.F) {
	f.Add(csvHead + "\nr1n01,redfish://10.0.0.5,admin,pw,52:54:00:00:00:01\n")
	f.Add("\"\n,\xff")
	f.Fuzz(func(t *testing.T, file string) {
		rows, err := readHosts(strings.NewReader(file), "default")
		if (err == nil) != (len(rows) > 0) {
			t.Errorf("rows %d, err %v", len(rows), err)
		}
		for _, r := range rows {
			if r.problem == nil && (r.name == "" || r.bootMAC == "" || r.bmcAddress == "" || r.Password == "") {
				t.Errorf("a sound row lacks something: %s", told(r))
			}
		}
	})
}
