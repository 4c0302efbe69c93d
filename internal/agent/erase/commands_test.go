// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

func TestKernelsStructs(t *testing.T) {
	for name, sizes := range map[string][2]uintptr{
		"nvme_passthru_cmd": {unsafe.Sizeof(nvmeCommand{}), 72}, "its data": {unsafe.Offsetof(nvmeCommand{}.data), 24},
		"its dwords": {unsafe.Offsetof(nvmeCommand{}.cdw), 40}, "its time": {unsafe.Offsetof(nvmeCommand{}.timeoutMs), 64},
		"sg_io_hdr": {unsafe.Sizeof(sgHeader{}), 88}, "its status": {unsafe.Offsetof(sgHeader{}.status), 64}, "its sense": {unsafe.Offsetof(sgHeader{}.sense), 32},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s: got %d, want %d", name, sizes[0], sizes[1])
		}
	}
}

func names(l Ladder) string {
	var all []string
	for _, m := range l.Methods {
		name := m.Name
		if m.Whole {
			name += "*"
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// controller is an NVMe controller.
type nvmeController struct {
	oacs      uint16
	fna       byte
	sanicap   uint32
	log       []uint16 // status of the sanitize log, one after the other; the last stays
	answers   map[byte]error
	namespace []byte
	did       []string
}

func (c *nvmeController) do(command nvmeCommand, data []byte, _ time.Duration) error {
	if err := c.answers[command.opcode]; err != nil {
		return err
	}
	switch command.opcode {
	case nvmeIdentify:
		if command.cdw[0] == 1 {
			binary.LittleEndian.PutUint16(data[256:], c.oacs)
			binary.LittleEndian.PutUint32(data[328:], c.sanicap)
			data[524] = c.fna
		} else {
			copy(data, c.namespace)
		}
		return nil
	case nvmeGetLog:
		binary.LittleEndian.PutUint16(data, 0x8000)
		binary.LittleEndian.PutUint16(data[2:], c.log[0])
		if len(c.log) > 1 {
			c.log = c.log[1:]
		}
		return nil
	}
	c.did = append(c.did, fmt.Sprintf("%x %x %x", command.opcode, command.namespace, command.cdw[0]))
	return nil
}

func TestNVMeLadder(t *testing.T) {
	for _, test := range []struct {
		name    string
		c       nvmeController
		want    string
		without int
	}{
		{"all of it", nvmeController{oacs: 2, fna: 4, sanicap: 3, log: []uint16{0}}, "nvme-sanitize-crypto* nvme-sanitize-block* nvme-format-crypto nvme-format", 0},
		{"all namespaces at once", nvmeController{oacs: 2, fna: 6, sanicap: 1, log: []uint16{0}}, "nvme-sanitize-crypto* nvme-format-crypto* nvme-format*", 1},
		{"format alone", nvmeController{oacs: 2}, "nvme-format", 3},
		{"crypto erase, but no format", nvmeController{fna: 4}, "", 4},
		{"no answer", nvmeController{answers: map[byte]error{nvmeIdentify: errors.New("status 0x1")}}, "", 1},
	} {
		p := &Pulse{}
		l := nvmeLadder(t.Context(), p, test.c.do)
		if got := names(l); got != test.want || len(l.Without) != test.without {
			t.Errorf("%s: got %q without %q, want %q", test.name, got, l.Without, test.want)
		}
		for _, m := range l.Methods {
			if !m.Scrambles {
				t.Errorf("%s: %s promises zeros", test.name, m.Name)
			}
		}
	}
}

func TestNVMeMethods(t *testing.T) {
	namespace := make([]byte, 4096)
	namespace[26], namespace[29] = 0x31, 0x0a // format 17 with extended metadata, protection type 2 in the last bytes
	for _, test := range []struct {
		name, method string
		c            nvmeController
		did, err     string
	}{
		{"sanitized", "nvme-sanitize-crypto", nvmeController{log: []uint16{0, 2, 2, 1}}, "84 0 c", ""},
		{"sanitized, with all deallocated", "nvme-sanitize-block", nvmeController{log: []uint16{0, 2, 4}}, "84 0 a", ""},
		{"failed, and left", "nvme-sanitize-block", nvmeController{log: []uint16{0, 2, 3}}, "84 0 a|84 0 1", "says that it failed"},
		{"refused", "nvme-sanitize-block", nvmeController{log: []uint16{0}, answers: map[byte]error{nvmeSanitize: errors.New("status 0x1c")}}, "", "starting: status 0x1c"},
		{"begun in an earlier boot", "nvme-sanitize-crypto", nvmeController{log: []uint16{2, 2, 1, 2, 1}}, "84 0 c", ""},
		{"without an end", "nvme-sanitize-crypto", nvmeController{log: []uint16{0, 2}}, "84 0 c|84 0 1", "longer than 24h"},
		{"formatted", "nvme-format-crypto", nvmeController{namespace: namespace}, "80 fffffffe 1551", ""},
		{"formatted with overwriting", "nvme-format", nvmeController{namespace: namespace}, "80 fffffffe 1351", ""},
		{"all namespaces formatted", "nvme-format", nvmeController{namespace: namespace, fna: 1}, "80 ffffffff 1351", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := test.c
			c.oacs, c.fna, c.sanicap = 2, c.fna|4, 3
			if c.log == nil {
				c.log = []uint16{0}
			}
			p := &Pulse{}
			l := nvmeLadder(t.Context(), p, c.do)
			m := l.Methods[slices.IndexFunc(l.Methods, func(m Method) bool { return m.Name == test.method })]
			err := m.Do(t.Context(), p)
			if got := strings.Join(c.did, "|"); got != test.did || !strings.Contains(fmt.Sprint(err), test.err) || (err == nil) != (test.err == "") {
				t.Errorf("%s: did %q, want %q; %v", test.name, got, test.did, err)
			}
		})
	}
}

func TestATATakes(t *testing.T) {
	for word, want := range map[uint16]time.Duration{0: 0, 1: 2 * time.Minute, 0xfe: 508 * time.Minute, 0xff: 0, 0x8100: 512 * time.Minute, 0xffff: 0} {
		if got := ataTakes(word); got != want {
			t.Errorf("%#x: got %s, want %s", word, got, want)
		}
	}
}

// ataDrive is a drive behind ATA PASS-THROUGH.
type ataDrive struct {
	word82, word128 uint16
	fails           []byte // commands
	did             []string
}

func (a *ataDrive) do(c, data []byte, out bool, within time.Duration) error {
	if c[0] != ataPassThrough || (len(data) > 0) != (c[6] == 1) || out != (c[1] == ataOut) {
		return fmt.Errorf("a strange command %x", c)
	}
	if slices.Contains(a.fails, c[14]) {
		return senseError{key: 0xb}
	}
	if c[14] == ataIdentify {
		binary.LittleEndian.PutUint16(data[2*82:], a.word82)
		binary.LittleEndian.PutUint16(data[2*89:], 10)
		binary.LittleEndian.PutUint16(data[2*128:], a.word128)
		return nil
	}
	word := ""
	if len(data) > 0 {
		word = fmt.Sprintf(" %d %s", data[0], strings.TrimRight(string(data[2:34]), "\x00"))
	}
	a.did = append(a.did, fmt.Sprintf("%x%s in %s", c[14], word, within))
	return nil
}

func TestATALadder(t *testing.T) {
	for _, test := range []struct {
		name            string
		word82, word128 uint16
		fails           []byte
		want, without   string
	}{
		{"enhanced", 2, 0x21, nil, "ata-secure-erase-enhanced ata-secure-erase", ""},
		{"normal", 2, 0x01, nil, "ata-secure-erase", "does not have it"},
		{"none", 0, 0, nil, "", "does not have it"},
		{"frozen", 2, 0x29, nil, "", "frozen"},
		{"too many passwords", 2, 0x31, nil, "", "without power"},
		{"locked", 2, 0x27, nil, "ata-secure-erase-enhanced ata-secure-erase", ""},
		{"not ATA at all", 2, 0x21, []byte{ataIdentify}, "", "identifying the drive: the drive aborts"},
	} {
		a := &ataDrive{word82: test.word82, word128: test.word128, fails: test.fails}
		l := ataLadder(a.do)
		if got := names(l); got != test.want || !strings.Contains(strings.Join(l.Without, ""), test.without) || (test.without == "") != (l.Without == nil) {
			t.Errorf("%s: got %q without %q", test.name, got, l.Without)
		}
	}
}

func TestSecureErase(t *testing.T) {
	const set, off = "f1 0 metald in 1m0s", "f6 0 metald in 1m0s"
	for _, test := range []struct {
		name    string
		word128 uint16
		method  int
		fails   []byte
		did     string
		err     string
	}{
		{"enhanced", 0x21, 0, nil, set + "|f3 in 1m0s|f4 2 metald in 24h0m0s", ""},
		{"normal, takes 20 minutes", 0x21, 1, nil, set + "|f3 in 1m0s|f4 0 metald in 1h10m0s", ""},
		{"the erase fails", 0x21, 1, []byte{ataEraseUnit}, set + "|f3 in 1m0s|" + off, "aborts"},
		{"the password stays", 0x21, 1, []byte{ataEraseUnit, ataDisablePassword}, set + "|f3 in 1m0s", `"metald" could not be taken away`},
		{"no password is taken", 0x21, 1, []byte{ataSetPassword}, "", "setting a password"},
		{"locked by an erase of ours", 0x27, 1, nil, "f3 in 1m0s|f4 0 metald in 1h10m0s", ""},
		{"locked by others", 0x27, 1, []byte{ataEraseUnit}, "f3 in 1m0s", "not ours"},
	} {
		a := &ataDrive{word82: 2, word128: test.word128, fails: test.fails}
		err := ataLadder(a.do).Methods[test.method].Do(t.Context(), &Pulse{})
		if got := strings.Join(a.did, "|"); got != test.did || !strings.Contains(fmt.Sprint(err), test.err) || (err == nil) != (test.err == "") {
			t.Errorf("%s: did %q, want %q; %v", test.name, got, test.did, err)
		}
	}
}

func TestSense(t *testing.T) {
	fixed := func(key, code, qualifier byte, progress ...byte) []byte {
		d := []byte{0x70, 0, key, 7: 10, 12: code, 13: qualifier, 17: 0}
		if len(progress) == 2 {
			d[15], d[16], d[17] = 0x80, progress[0], progress[1]
		}
		return d
	}
	for _, test := range []struct {
		name string
		d    []byte
		want senseError
		text string
	}{
		{"no such command", fixed(5, 0x20, 0), senseError{5, 0x20, 0, -1}, "does not have it"},
		{"sanitizing", fixed(2, 4, 0x1b, 0x40, 0), senseError{2, 4, 0x1b, 0x4000}, "sense 2/04/1b"},
		{"sanitizing, with descriptors", []byte{0x72, 2, 4, 0x1b, 0, 0, 0, 20, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 6, 0, 0, 0x80, 0x20, 1, 0},
			senseError{2, 4, 0x1b, 0x2001}, "sense"},
		{"descriptors that end early", []byte{0x72, 3, 0x31, 3, 0, 0, 0, 255}, senseError{3, 0x31, 3, -1}, "it failed"},
		{"descriptors of no length", []byte{0x72, 5, 0x24, 0, 0, 0, 0, 56}, senseError{5, 0x24, 0, -1}, "does not have it"},
		{"cut off", []byte{0x70, 0, 6}, senseError{6, 0, 0, -1}, "6/00/00"},
		{"nothing", nil, senseError{0, 0, 0, -1}, "0/00/00"},
	} {
		if got := parseSense(test.d); got != test.want || !strings.Contains(got.Error(), test.text) {
			t.Errorf("%s: got %+v %s, want %+v", test.name, got, got, test.want)
		}
	}
}

func TestSCSISanitize(t *testing.T) {
	for _, test := range []struct {
		name   string
		start  error
		sense  [][3]byte
		action int
		did    string
		err    string
	}{
		{"crypto", nil, [][3]byte{{2, 4, 0x1b}, {2, 4, 0x1b}, {}}, 0, "48 a3", ""},
		{"block", nil, [][3]byte{{}}, 1, "48 a2", ""},
		{"not there", senseError{key: 5, code: 0x20}, nil, 0, "48 a3", "does not have it"},
		{"failed, and left", nil, [][3]byte{{2, 4, 0x1b}, {3, 0x31, 3}}, 1, "48 a2|48 1f", "it failed"},
		{"without an end", nil, [][3]byte{{2, 4, 0x1b}}, 1, "48 a2", "does not end"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var did []string
			asked := 0
			do := func(c, data []byte, out bool, _ time.Duration) error {
				if c[0] != scsiSense {
					did = append(did, fmt.Sprintf("%x %x", c[0], c[1]))
					if len(c) != 10 {
						t.Errorf("a sanitize of %d bytes", len(c))
					}
					return test.start
				}
				s := test.sense[min(asked, len(test.sense)-1)]
				asked++
				copy(data, []byte{0x70, 0, s[0], 7: 10, 12: s[1], 13: s[2], 17: 0})
				return nil
			}
			err := scsiLadder(do).Methods[test.action].Do(context.Background(), &Pulse{})
			if got := strings.Join(did, "|"); got != test.did || !strings.Contains(fmt.Sprint(err), test.err) || (err == nil) != (test.err == "") {
				t.Errorf("%s: did %q, want %q; %v", test.name, got, test.did, err)
			}
		})
	}
}
