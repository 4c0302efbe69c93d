// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// An authority is replaced in three steps, with a restart of the daemon after each, so that nobody is ever asked to trust what
// they have not heard of: begin makes the next one and trusts it beside the present one; switch signs with the next one, and
// still trusts the one before; finish trusts the new one alone. Between begin and switch a site hands the new one round: for
// the site CA in new ramdisks, images and kubeconfigs, for the client CA there is nothing to hand round.
//
// In the directory of keys NAME.crt and NAME.key sign; NAME.next.crt, with its key, and NAME.old.crt, without, are trusted.

// Authorities are those that can be replaced.
var Authorities = []string{"site", "client"}

// RotationSteps are the steps in which it is done.
var RotationSteps = []string{"begin", "switch", "finish"}

// Rotate takes one step in replacing an authority of a data directory. The daemon goes by it from its next start on.
func Rotate(dataDir, which, step string, now time.Time) error {
	if err := rotate(dataDir, which, step, now); err != nil {
		return err
	}
	return wrap("recording the step", list(filepath.Join(dataDir, "pki"), rotated{Authority: which, Step: step, At: now.UTC(), By: person()}))
}

// rotated is the line that a step leaves in the list of logins.
type rotated struct {
	Authority string    `json:"authority"`
	Step      string    `json:"step"`
	At        time.Time `json:"at"`
	By        string    `json:"by,omitempty"`
}

func rotate(dataDir, which, step string, now time.Time) error {
	if !slices.Contains(Authorities, which) {
		return fmt.Errorf("no authority %q: want one of %v", which, Authorities)
	}
	dir, name := filepath.Join(dataDir, "pki"), which+"-ca"
	present, err := existing(dir, name, now)
	if err != nil {
		return err
	}
	_, nextErr := os.Stat(filepath.Join(dir, name+".next.crt"))
	_, oldErr := os.Stat(filepath.Join(dir, name+".old.crt"))
	switch step {
	case "begin":
		if nextErr == nil || oldErr == nil {
			return fmt.Errorf("the %s CA is being replaced already: go on with %s", which, map[bool]string{true: "switch", false: "finish"}[nextErr == nil])
		}
		certPEM, keyPEM, err := newAuthority("metald "+which+" CA", now)
		if err != nil {
			return fmt.Errorf("making the next %s CA: %w", which, err)
		}
		return wrap("writing the next CA", writePair(dir, name+".next", certPEM, keyPEM))
	case "switch":
		if nextErr != nil {
			return fmt.Errorf("no next %s CA to switch to: begin first", which)
		}
		if _, err := existing(dir, name+".next", now); err != nil {
			return err
		}
		if err := renameio.WriteFile(filepath.Join(dir, name+".old.crt"), present.pem, 0o644); err != nil {
			return fmt.Errorf("keeping the present CA: %w", err)
		}
		if err := os.Rename(filepath.Join(dir, name+".next.key"), filepath.Join(dir, name+".key")); err != nil {
			return fmt.Errorf("switching to the next CA: %w", err)
		}
		return wrap("switching to the next CA", finishSwitch(dir, name))
	case "finish":
		if nextErr == nil || oldErr != nil {
			return fmt.Errorf("no former %s CA to let go of: switch first", which)
		}
		return wrap("letting go of the former CA", errors.Join(os.Remove(filepath.Join(dir, name+".old.crt")), syncDir(dir)))
	}
	return fmt.Errorf("no step %q: want one of %v", step, RotationSteps)
}

func wrap(doing string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// existing reads an authority that must be there.
func existing(dir, name string, now time.Time) (*authority, error) {
	if _, err := os.Stat(filepath.Join(dir, name+".crt")); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return ensureAuthority(dir, name, "", now)
}

// finishSwitch puts the next certificate beside its key, where a switch, perhaps one that was cut short, has moved that
// already; otherwise it does nothing.
func finishSwitch(dir, name string) error {
	next := filepath.Join(dir, name+".next.crt")
	certPEM, err := os.ReadFile(next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return err
	}
	if _, _, err := parsePair(certPEM, keyPEM); err != nil {
		return nil // it is still next
	}
	return errors.Join(os.Rename(next, filepath.Join(dir, name+".crt")), syncDir(dir))
}

// SiteAuthorities is every site CA that is to be trusted, in PEM: for what carries it away from here. It needs no key.
func SiteAuthorities(dataDir string, now time.Time) ([]byte, error) {
	dir := filepath.Join(dataDir, "pki")
	site, err := os.ReadFile(filepath.Join(dir, "site-ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("reading the site CA: %w", err)
	}
	return trusted(dir, "site-ca", site, now)
}

// trusted is an authority with its next one and the one before, where there are such and they have not ended.
func trusted(dir, name string, present []byte, now time.Time) ([]byte, error) {
	bundle := bytes.Clone(present)
	for _, other := range []string{name + ".next.crt", name + ".old.crt"} {
		text, err := os.ReadFile(filepath.Join(dir, other))
		if errors.Is(err, fs.ErrNotExist) || bytes.Equal(text, present) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", other, err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("reading %s: no certificate in it", other)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", other, err)
		}
		if now.Before(cert.NotAfter) {
			bundle = append(bundle, text...)
		}
	}
	return bundle, nil
}

// syncDir makes renames in a directory outlast a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
