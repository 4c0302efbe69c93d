// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// holds says whether a leaf is good under a bundle of authorities.
func holds(t *testing.T, leaf, bundle []byte, usage x509.ExtKeyUsage) bool {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatal("no authority")
	}
	_, err := certificate(t, leaf).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: start.Add(time.Hour), KeyUsages: []x509.ExtKeyUsage{usage}})
	return err == nil
}

func step(t *testing.T, dir, which, step string) *PKI {
	t.Helper()
	if err := Rotate(dir, which, step, start); err != nil {
		t.Fatal(err)
	}
	return ensure(t, dir, nil, start)
}

// TestRotateClientCA follows two logins, one of before and one of after, through the three steps.
func TestRotateClientCA(t *testing.T) {
	dir := t.TempDir()
	first := ensure(t, dir, nil, start)
	login := func() []byte {
		issued, err := SignLogin(dir, Login{User: "olga", Life: 100 * time.Hour}, start)
		if err != nil {
			t.Fatal(err)
		}
		return issued.certificate
	}
	before := login()
	begun := step(t, dir, "client", "begin")
	during := login()
	switched := step(t, dir, "client", "switch")
	after := login()
	finished := step(t, dir, "client", "finish")
	for name, test := range map[string]struct {
		leaf []byte
		want [4]bool // at first, begun, switched, finished
	}{
		"signed before":         {before, [4]bool{true, true, true, false}},
		"signed between":        {during, [4]bool{true, true, true, false}},
		"signed after":          {after, [4]bool{false, true, true, true}},
		"first administrator's": {first.AdminCertificate, [4]bool{true, true, true, false}},
		"last administrator's":  {finished.AdminCertificate, [4]bool{false, true, true, true}},
	} {
		for i, p := range []*PKI{first, begun, switched, finished} {
			if got := holds(t, test.leaf, p.ClientCA, x509.ExtKeyUsageClientAuth); got != test.want[i] {
				t.Errorf("login %s, %s: got %t, want %t", name, []string{"at first", "begun", "switched", "finished"}[i], got, test.want[i])
			}
		}
	}
	if string(finished.SiteCA) != string(first.SiteCA) {
		t.Error("the site CA has changed with the client CA")
	}
}

// TestRotateSiteCA looks on as a ramdisk of each step, which trusts what was trusted when it was built.
func TestRotateSiteCA(t *testing.T) {
	dir := t.TempDir()
	first := ensure(t, dir, nil, start)
	begun := step(t, dir, "site", "begin")
	carried, err := SiteAuthorities(dir, start)
	if err != nil || string(carried) != string(begun.SiteCA) {
		t.Errorf("what a ramdisk carries: got %v, want what the daemon trusts", err)
	}
	switched := step(t, dir, "site", "switch")
	finished := step(t, dir, "site", "finish")
	all := []*PKI{first, begun, switched, finished}
	want := [4][4]bool{ // ramdisk of, meets daemon of
		{true, true, false, false},
		{true, true, true, true},
		{true, true, true, true},
		{false, false, true, true},
	}
	for i, ramdisk := range all {
		for j, daemon := range all {
			if got := holds(t, daemon.Certificate, ramdisk.SiteCA, x509.ExtKeyUsageServerAuth); got != want[i][j] {
				t.Errorf("a ramdisk of step %d meets a daemon of step %d: got %t, want %t", i, j, got, want[i][j])
			}
		}
	}
}

// TestRotateOutOfStep holds each step to its place, and a switch that a crash has cut to its end.
func TestRotateOutOfStep(t *testing.T) {
	dir := t.TempDir()
	if err := Rotate(dir, "client", "begin", start); err == nil {
		t.Error("begin without an authority: got no error")
	}
	first := ensure(t, dir, nil, start)
	refused := func(what, step, want string) {
		t.Helper()
		if err := Rotate(dir, "client", step, start); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, %s: got %v, want an error with %q", what, step, err, want)
		}
	}
	refused("at first", "switch", "begin first")
	refused("at first", "finish", "switch first")
	refused("at first", "hurry", "no step")
	if err := Rotate(dir, "agents", "begin", start); err == nil || !strings.Contains(err.Error(), "no authority") {
		t.Errorf("an unknown authority: got %v", err)
	}
	step(t, dir, "client", "begin")
	refused("begun", "begin", "go on with switch")
	refused("begun", "finish", "switch first")

	// The key has moved, its certificate has not.
	pki := filepath.Join(dir, "pki")
	text, err := os.ReadFile(filepath.Join(pki, "client-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(pki, "client-ca.old.crt"), string(text))
	if err := os.Rename(filepath.Join(pki, "client-ca.next.key"), filepath.Join(pki, "client-ca.key")); err != nil {
		t.Fatal(err)
	}
	after := ensure(t, dir, nil, start)
	if !holds(t, first.AdminCertificate, after.ClientCA, x509.ExtKeyUsageClientAuth) || !holds(t, after.AdminCertificate, after.ClientCA, x509.ExtKeyUsageClientAuth) ||
		holds(t, after.AdminCertificate, first.ClientCA, x509.ExtKeyUsageClientAuth) {
		t.Error("after a switch that was cut: want the new authority to sign and both to be trusted")
	}
	refused("switched", "begin", "go on with finish")
	step(t, dir, "client", "finish")
	step(t, dir, "client", "begin")
}
