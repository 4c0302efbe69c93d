// SPDX-License-Identifier: Apache-2.0

//go:build long

package bmc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/internal/bmc/bmctest/ipmisim"
)

// chassisScript keeps power and boot in files beside it, and its calls in one.
const chassisScript = `#!/bin/sh
cd "$(dirname "$0")" || exit 1
shift
echo "$*" >>calls
case "$1 $2" in
"get power") echo "power:$(cat power 2>/dev/null || echo 0)" ;;
"get boot") echo "boot:$(cat boot 2>/dev/null || echo none)" ;;
"set power") echo "$3" >power ;;
"set boot") if ! test -e forgetful; then echo "$3" >boot; fi ;;
"set shutdown") echo 0 >power ;;
"set reset") ;;
*) exit 1 ;;
esac
`

// simulator is a running ipmi_sim.
type simulator struct {
	dir     string
	process *exec.Cmd
	target  Target
	port    uint16
}

func startSimulator(t *testing.T) *simulator {
	t.Helper()
	if _, err := exec.LookPath("ipmi_sim"); err != nil {
		t.Fatal("this test needs Debian's package openipmi, without its service: ", err)
	}
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &simulator{dir: t.TempDir(), port: uint16(free.LocalAddr().(*net.UDPAddr).Port)}
	_ = free.Close()
	program := filepath.Join(s.dir, "chassis")
	if err := os.WriteFile(program, []byte(chassisScript), 0o755); err != nil {
		t.Fatal(err)
	}
	argv, err := ipmisim.Config{
		Address: "127.0.0.1", Port: s.port, User: "root", Password: "calvin", GUID: "6d6574a1-0001-4002-8003-0000000000a5",
		Manufacturer: "Acme", Product: "R1", Serial: "S1", ChassisProgram: program, Dir: s.dir,
	}.Write()
	if err != nil {
		t.Fatal(err)
	}
	s.process = exec.Command(argv[0], argv[1:]...)
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.process.Process.Signal(syscall.SIGCONT)
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
	})
	s.target = Target{Address: Address{Driver: "ipmi", Host: "127.0.0.1", Port: s.port}, Username: "root", Password: "calvin"}
	for range 50 {
		var c Controller
		if c, err = Dial(soon(t), s.target); err == nil {
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			return s
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("ipmi_sim does not answer: ", err)
	return nil
}

// calls are the calls of the chassis program that change something.
func (s *simulator) calls(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	var sets []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "set ") {
			sets = append(sets, line)
		}
	}
	return sets
}

// witness asks the simulator by ipmitool, which shares nothing with us.
func (s *simulator) witness(t *testing.T, args ...string) string {
	t.Helper()
	base := []string{"-I", "lanplus", "-C", "3", "-H", "127.0.0.1", "-p", fmt.Sprint(s.port), "-U", "root", "-P", "calvin"}
	out, err := exec.Command("ipmitool", append(base, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ipmitool %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestSimulator(t *testing.T) {
	s := startSimulator(t)
	opened, err := Dial(t.Context(), s.target)
	if err != nil {
		t.Fatal(err)
	}
	c := opened.(*ipmi)
	if c.session.Suite() != 3 {
		t.Errorf("suite %d is spoken, want 3: it knows no 17", c.session.Suite())
	}
	id, err := c.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{Manufacturer: "Acme", Model: "R1", SerialNumber: "S1", SystemUUID: "6d6574a1-0001-4002-8003-0000000000a5", BMCVersion: "2.13"}
	if diff := cmp.Diff(want, id); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	if said := s.witness(t, "mc", "guid"); !strings.Contains(said, id.SystemUUID) {
		t.Errorf("ipmitool knows another UUID: %s", said)
	}
	for i, step := range []struct {
		action PowerAction
		want   PowerState
	}{{ForceOff, Off}, {PowerOn, On}, {PowerOn, On}, {ForceRestart, On}, {GracefulOff, Off}, {GracefulOff, Off}, {ForceRestart, On}, {ForceOff, Off}} {
		if err := c.Switch(t.Context(), step.action); err != nil {
			t.Fatalf("step %d: Switch(%s) = %v", i, step.action, err)
		}
		if got, err := c.Power(t.Context()); err != nil || got != step.want {
			t.Errorf("step %d, %s: power %s, %v; want %s", i, step.action, got, err, step.want)
		}
		if said := s.witness(t, "power", "status"); !strings.Contains(said, "is "+strings.ToLower(string(step.want))) {
			t.Errorf("step %d, %s: ipmitool says %q, want %s", i, step.action, said, step.want)
		}
	}
	if diff := cmp.Diff([]string{"set power 1", "set reset 1", "set shutdown 1", "set power 1", "set power 0"}, s.calls(t)); diff != "" {
		t.Errorf("what was switched (-want +got):\n%s", diff)
	}
	for _, step := range []struct {
		target BootTarget
		said   string
	}{{BootPXE, "Force PXE"}, {BootDisk, "Force Boot from default Hard-Drive"}, {BootNone, "No override"}} {
		if err := c.SetOneTimeBoot(t.Context(), step.target); err != nil {
			t.Errorf("SetOneTimeBoot(%s) = %v", step.target, err)
		}
		if got, err := c.OneTimeBoot(t.Context()); err != nil || got != step.target {
			t.Errorf("OneTimeBoot() = %s, %v; want %s", got, err, step.target)
		}
		if got := s.witness(t, "chassis", "bootparam", "get", "5"); !strings.Contains(got, step.said) {
			t.Errorf("%s: ipmitool says\n%s\nwant %q", step.target, got, step.said)
		}
	}
	// It stands at "No override" now: a BMC that forgets an order to do what it does anyway cannot be caught at it.
	if err := os.WriteFile(filepath.Join(s.dir, "forgetful"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.SetOneTimeBoot(t.Context(), BootPXE); !errors.Is(err, ErrNotKept) {
		t.Errorf("forgetful: SetOneTimeBoot() = %v, want ErrNotKept", err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Errorf("Close() = %v", err)
	}
	// Ten sessions of one user are all it has: if one were left behind each time, the eleventh would be refused.
	for range 12 {
		c, err := Dial(t.Context(), s.target)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSimulatorRefuses(t *testing.T) {
	s := startSimulator(t)
	bad := s.target
	bad.Password = "wrong"
	began := time.Now()
	if _, err := Dial(t.Context(), bad); !errors.Is(err, ErrCredentials) {
		t.Errorf("wrong password: %v, want ErrCredentials", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s: it was not told by the first answer", took)
	}
	bad = s.target
	bad.Username = "nobody"
	if _, err := Dial(t.Context(), bad); !errors.Is(err, ErrCredentials) {
		t.Errorf("unknown user: %v, want ErrCredentials", err)
	}
}

func TestSimulatorHangs(t *testing.T) {
	s := startSimulator(t)
	c, err := Dial(t.Context(), s.target)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Power(soon(t)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("stopped: Power() = %v, want ErrUnreachable", err)
	}
	if _, err := Dial(soon(t), s.target); !errors.Is(err, ErrUnreachable) {
		t.Errorf("stopped: Dial() = %v, want ErrUnreachable", err)
	}
	if err := s.process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Power(t.Context()); err != nil || got != Off {
		t.Errorf("going on: Power() = %s, %v; want Off", got, err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Errorf("Close() = %v", err)
	}
}
