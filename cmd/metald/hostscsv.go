// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"

	"metald.io/metald/internal/bmc"
)

// hostRow is one machine of a list, as a person wrote it down.
type hostRow struct {
	// line is where it stands in the file.
	line            int
	namespace, name string
	bmcAddress      string
	username        string
	// Password is exported because fmt asks only exported fields how they want to be printed.
	Password           bmc.Secret
	bootMAC            string
	zone, region, rack string
	bmcCertificate     string
	serialNumber       string
	architecture       string
	problem            error
}

// column says how one column of the file is read into a row.
type column struct {
	required bool
	set      func(r *hostRow, value string) error
}

var columns = map[string]column{
	"name":        {true, setName},
	"bmc_address": {true, setAddress},
	"bmc_username": {true, func(r *hostRow, v string) error {
		r.username = v
		return wanted(v)
	}},
	"bmc_password": {true, func(r *hostRow, v string) error {
		r.Password = bmc.Secret(v)
		return wanted(v)
	}},
	"boot_mac":               {true, setBootMAC},
	"namespace":              {false, setNamespace},
	"zone":                   {false, func(r *hostRow, v string) error { return setLabel(&r.zone, v) }},
	"region":                 {false, func(r *hostRow, v string) error { return setLabel(&r.region, v) }},
	"rack":                   {false, func(r *hostRow, v string) error { return setLabel(&r.rack, v) }},
	"bmc_certificate_sha256": {false, setCertificate},
	"serial_number":          {false, setSerialNumber},
	"architecture":           {false, setArchitecture},
}

// readHosts reads a list of hosts whose first line names the columns. An error means that the file as a whole makes no sense and
// nothing of it may be used; what is wrong with one row alone is in that row's problem.
func readHosts(r io.Reader, namespace string) ([]hostRow, error) {
	in := csv.NewReader(r)
	in.Comment = '#'
	in.FieldsPerRecord = -1
	in.TrimLeadingSpace = true
	header, err := in.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the file is empty: want a first line with the columns %s", strings.Join(columnNames(true), ","))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the first line: %w", err)
	}
	if err := checkHeader(header); err != nil {
		return nil, err
	}
	var rows []hostRow
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading rows: %w", err)
		}
		line, _ := in.FieldPos(0)
		rows = append(rows, readRow(header, record, line, namespace))
	}
	if len(rows) == 0 {
		return nil, errors.New("the file holds no hosts, only a first line")
	}
	markDuplicates(rows)
	return rows, nil
}

func checkHeader(header []string) error {
	// Spreadsheets put a byte order mark before the first column's name.
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	seen := map[string]bool{}
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		header[i] = name
		if _, known := columns[name]; !known {
			return fmt.Errorf("unknown column %q: known are %s", name, strings.Join(append(columnNames(true), columnNames(false)...), ", "))
		}
		if seen[name] {
			return fmt.Errorf("column %q is given twice", name)
		}
		seen[name] = true
	}
	for _, name := range columnNames(true) {
		if !seen[name] {
			return fmt.Errorf("column %q is missing: required are %s", name, strings.Join(columnNames(true), ", "))
		}
	}
	return nil
}

func columnNames(required bool) []string {
	var names []string
	for name, c := range columns {
		if c.required == required {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func readRow(header, record []string, line int, namespace string) hostRow {
	r := hostRow{line: line, namespace: namespace}
	if len(record) != len(header) {
		r.problem = fmt.Errorf("%d values, but %d columns", len(record), len(header))
	}
	for i, name := range header[:min(len(header), len(record))] {
		value := record[i]
		if name != "bmc_password" {
			value = strings.TrimSpace(value)
		}
		if value == "" && !columns[name].required {
			continue
		}
		if err := columns[name].set(&r, value); err != nil && r.problem == nil {
			r.problem = fmt.Errorf("%s: %w", name, err)
		}
	}
	if r.problem == nil {
		r.problem = r.checkBMC()
	}
	return r
}

// What IPMI 2.0 allows (sections 22.28, Set User Name, and 22.30, Set User Password).
const (
	maxIPMIUser     = 16
	maxIPMIPassword = 20
)

// checkBMC refuses what cannot work with the kind of BMC that the address names.
func (r hostRow) checkBMC() error {
	address, err := bmc.ParseAddress(r.bmcAddress)
	switch {
	case err != nil:
		return fmt.Errorf("bmc_address: %w", err)
	case r.bmcCertificate != "" && !address.Certified():
		return fmt.Errorf("bmc_certificate_sha256: a BMC at %s shows no certificate", r.bmcAddress)
	case address.IPMI() && len(r.username) > maxIPMIUser:
		return fmt.Errorf("bmc_username: IPMI has no user names of more than %d bytes", maxIPMIUser)
	case address.IPMI() && len(r.Password.Reveal()) > maxIPMIPassword:
		return fmt.Errorf("bmc_password: IPMI has no passwords of more than %d bytes", maxIPMIPassword)
	}
	return nil
}

// markDuplicates refuses every row of a pair, and names the other: nobody knows which of the two is right.
func markDuplicates(rows []hostRow) {
	for _, key := range []struct {
		what string
		of   func(r *hostRow) string
	}{
		{"name", func(r *hostRow) string {
			if r.name == "" {
				return ""
			}
			return r.namespace + "/" + r.name
		}},
		{"boot MAC", func(r *hostRow) string { return r.bootMAC }},
		{"BMC address", func(r *hostRow) string { return r.bmcKey() }},
		{"serial number", func(r *hostRow) string { return strings.ToLower(r.serialNumber) }},
	} {
		with := map[string][]int{} // which rows have it
		for i := range rows {
			if k := key.of(&rows[i]); k != "" {
				with[k] = append(with[k], i)
			}
		}
		for _, same := range with {
			for n, i := range same {
				if len(same) > 1 && rows[i].problem == nil {
					other := rows[same[(n+1)%len(same)]]
					rows[i].problem = fmt.Errorf("the same %s as line %d (%s)", key.what, other.line, cmp.Or(other.name, "without a name"))
				}
			}
		}
	}
}

// bmcKey is the same for two ways of writing the same BMC's address.
func (r *hostRow) bmcKey() string { return bmcKey(r.bmcAddress) }

func bmcKey(address string) string {
	if a, err := bmc.ParseAddress(address); err == nil {
		return a.String()
	}
	return address
}

func wanted(v string) error {
	if v == "" {
		return errors.New("must not be empty")
	}
	return nil
}

// A host's name becomes the Node's, so it is held to what Kubernetes allows there (RFC 1123 subdomain), short enough to be a label.
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

func setName(r *hostRow, v string) error {
	r.name = v
	if !nodeName.MatchString(v) || strings.Contains(v, "..") {
		return fmt.Errorf("%q cannot be a Node's name: want at most 63 lower-case letters, digits, '-' and '.'", v)
	}
	return nil
}

func setNamespace(r *hostRow, v string) error {
	r.namespace = v
	if !nodeName.MatchString(v) || strings.Contains(v, ".") {
		return fmt.Errorf("%q cannot be a namespace", v)
	}
	return nil
}

func setAddress(r *hostRow, v string) error {
	r.bmcAddress = v
	if v == "" {
		return errors.New("must not be empty")
	}
	_, err := bmc.ParseAddress(v)
	return err
}

func setBootMAC(r *hostRow, v string) error {
	mac, err := net.ParseMAC(v)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("%q is not a MAC address", v)
	}
	if mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
		return fmt.Errorf("%s is not the address of one machine", mac)
	}
	r.bootMAC = mac.String()
	return nil
}

var labelValue = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

func setLabel(into *string, v string) error {
	*into = v
	if !labelValue.MatchString(v) {
		return fmt.Errorf("%q cannot be a label: want at most 63 letters, digits, '-', '_' and '.'", v)
	}
	return nil
}

// setCertificate takes what openssl prints (AB:CD:...) as well as plain hex.
func setCertificate(r *hostRow, v string) error {
	v = strings.ToLower(strings.ReplaceAll(v, ":", ""))
	if raw, err := hex.DecodeString(v); err != nil || len(raw) != 32 {
		return fmt.Errorf("want the 64 hex digits of a sha256")
	}
	r.bmcCertificate = v
	return nil
}

// setSerialNumber takes what is printed on a machine. It is compared with what the BMC says, so it is kept as it is.
func setSerialNumber(r *hostRow, v string) error {
	r.serialNumber = v
	if len(v) > 64 || strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c > '~' }) {
		return fmt.Errorf("%q cannot be a serial number: want at most 64 printable ASCII characters", v)
	}
	return nil
}

// setArchitecture takes Go's word and the kernel's, and keeps Metal3's, which is the kernel's.
func setArchitecture(r *hostRow, v string) error {
	switch strings.ToLower(v) {
	case "x86_64", "amd64":
		r.architecture = "x86_64"
	case "aarch64", "arm64":
		r.architecture = "aarch64"
	default:
		return fmt.Errorf("%q: want x86_64 or aarch64", v)
	}
	return nil
}
