// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"metald.io/metald/test/lab/rack"
)

// site is a minimal Debian in a folder, inside the rack's network, and what was typed there.
type site struct {
	rack *rack.Rack
	root string
	// log is the daemon's.
	log    string
	text   strings.Builder
	open   bool
	daemon *exec.Cmd
	ended  chan error
}

// make installs the system and puts the release into root's home, where it was carried to.
func (s *site) make(ctx context.Context, deb string) error {
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "bookworm", s.root)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a minimal Debian: %w: %s", err, text)
	}
	s.log = filepath.Join(s.root, "var/log/metald.log")
	// What the machine's own network names is nothing that the site could know.
	if err := os.WriteFile(filepath.Join(s.root, "etc/resolv.conf"), nil, 0o644); err != nil {
		return fmt.Errorf("making a minimal Debian: %w", err)
	}
	return s.place(deb, filepath.Base(deb), 0o644)
}

// place copies a file into root's home.
func (s *site) place(from, name string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("carrying %s over: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(s.root, "root", name), data, mode); err != nil {
		return fmt.Errorf("carrying %s over: %w", name, err)
	}
	return nil
}

// inside is a shell's command in the system, in the rack's network, with its own /proc and no other environment.
func (s *site) inside(ctx context.Context, line string) *exec.Cmd {
	const enter = `mount -t proc proc "$0/proc" && exec chroot "$0" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive ` +
		`PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c "cd; $1"`
	return exec.CommandContext(ctx, "ip", "netns", "exec", s.rack.Name, "unshare", "--mount", "--propagation=private", "sh", "-c", enter, s.root, line)
}

// say adds a person's words to the transcript.
func (s *site) say(words string) {
	s.fence(false)
	fmt.Fprintf(&s.text, "%s\n\n", words)
}

func (s *site) fence(open bool) {
	if s.open != open {
		s.text.WriteString("```\n")
		if !open {
			s.text.WriteString("\n")
		}
	}
	s.open = open
}

// shell types a line, and notes it with what it said; those that count have a number.
func (s *site) shell(ctx context.Context, number int, line string) error {
	s.fence(true)
	if number > 0 {
		fmt.Fprintf(&s.text, "%d# %s\n", number, line)
	} else {
		fmt.Fprintf(&s.text, " # %s\n", line)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	text, err := s.inside(ctx, line).CombinedOutput()
	s.text.WriteString(neutral(string(text)))
	if err != nil {
		return fmt.Errorf("typing %q: %w: %s", line, err, text)
	}
	return nil
}

// serve does what systemd does with metald.service, and waits until the daemon says that it is ready.
func (s *site) serve(ctx context.Context) error {
	unit, err := os.ReadFile(filepath.Join(s.root, "usr/lib/systemd/system/metald.service"))
	if err != nil {
		return fmt.Errorf("reading the unit: %w", err)
	}
	value := func(key string) string {
		m := regexp.MustCompile(`(?m)^` + key + `=-?(.*)$`).FindSubmatch(unit)
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	var caps []string
	for _, c := range strings.Fields(value("AmbientCapabilities")) {
		caps = append(caps, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
	}
	user, both := value("User"), strings.Join(caps, ",")
	if user == "" || len(caps) == 0 || value("ExecStart") == "" || value("ExecStartPre") == "" {
		return errors.New("reading the unit: it has no User, AmbientCapabilities, ExecStartPre or ExecStart")
	}
	as := "setpriv --reuid=" + user + " --regid=" + user + " --clear-groups --no-new-privs --bounding-set=-all," + both +
		" --inh-caps=-all," + both + " --ambient-caps=-all," + both + " "
	if err := s.shell(ctx, 0, "install -d -o "+user+" -g "+user+" -m 700 /var/lib/metald"); err != nil {
		return err
	}
	if err := s.shell(ctx, 0, as+value("ExecStartPre")); err != nil {
		return err
	}
	socket := filepath.Join(s.root, "run/notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("waiting for the daemon: %w", err)
	}
	defer notify.Close()
	if err := os.Chmod(socket, 0o777); err != nil {
		return fmt.Errorf("waiting for the daemon: %w", err)
	}
	line := as + value("ExecStart")
	fmt.Fprintf(&s.text, " # %s &\n", line)
	out, err := os.Create(s.log)
	if err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	defer out.Close()
	s.daemon = s.inside(context.WithoutCancel(ctx), "NOTIFY_SOCKET=/run/notify exec "+line)
	s.daemon.Stdout, s.daemon.Stderr = out, out
	s.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.daemon.Start(); err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.daemon.Wait() }()
	start := time.Now()
	if err := notify.SetReadDeadline(start.Add(2 * time.Minute)); err != nil {
		return fmt.Errorf("waiting for the daemon: %w", err)
	}
	word := make([]byte, 512)
	n, err := notify.Read(word)
	if err != nil || !bytes.Contains(word[:n], []byte("READY=1")) {
		text, _ := os.ReadFile(s.log)
		return fmt.Errorf("waiting for the daemon: it said %q, %w; its log:\n%s", word[:n], err, text)
	}
	fmt.Fprintf(&s.text, "READY=1 (after %.1f s)\n", time.Since(start).Seconds())
	return nil
}

// stop ends the daemon.
func (s *site) stop() error {
	if s.daemon == nil || s.ended == nil {
		return nil
	}
	if err := syscall.Kill(-s.daemon.Process.Pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending the daemon: %w", err)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			return fmt.Errorf("the daemon ended badly: %w", err)
		}
		return nil
	case <-time.After(15 * time.Second):
		_ = syscall.Kill(-s.daemon.Process.Pid, syscall.SIGKILL)
		return errors.New("the daemon did not end when it was told to")
	}
}

// follow waits until the host is in a state, and notes each that it was seen in on the way.
func (s *site) follow(ctx context.Context, host, state string, limit time.Duration) error {
	start, last := time.Now(), ""
	for time.Since(start) < limit {
		text, err := s.inside(ctx, "metald status "+host+" -o jsonpath={.state}").Output()
		if err != nil {
			return fmt.Errorf("asking for the host's state: %w", err)
		}
		now := string(bytes.TrimSpace(text))
		if now != last {
			log.Printf("%s: %s after %s", host, now, time.Since(start).Round(time.Second))
			last = now
		}
		if now == state {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.ended:
			s.ended = nil
			return fmt.Errorf("following the host: the daemon ended: %w", err)
		case <-time.After(2 * time.Second):
		}
	}
	return fmt.Errorf("following the host: it is %q after %s, want %q", last, limit, state)
}

func (s *site) transcript() string {
	s.fence(false)
	return s.text.String()
}

// said counts a word in the transcript's answers.
func (s *site) said(word string) int { return strings.Count(s.text.String(), word) }

var neutralWords = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "SHA256"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?`), "TIME"},
	{regexp.MustCompile(` \d\d:\d\d:\d\d([ ,\n])`), " HH:MM:SS${1}"}, // and not what MAC addresses begin with
	{regexp.MustCompile(`(metald_|\()[0-9~][0-9A-Za-z.+~]*(_amd64\.deb|\))`), "${1}VERSION${2}"},
}

// neutral takes out what differs from run to run and says nothing.
func neutral(text string) string {
	for _, w := range neutralWords {
		text = w.pattern.ReplaceAllString(text, w.with)
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}
