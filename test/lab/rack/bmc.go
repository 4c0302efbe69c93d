// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"metald.io/metald/internal/bmc/bmctest"
)

// ServeBMC is the life of one machine's BMC: HTTPS Redfish on its own address inside the namespace, until ctx ends. The
// machine stays as it is: pulling the BMC does not pull the machine.
func (r *Rack) ServeBMC(ctx context.Context, name string) error {
	spec, err := r.SpecOf(name)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	machine, err := OpenMachine(ctx, r, spec, logger)
	if err != nil {
		return err
	}
	certificate, err := r.bmcCertificate(spec)
	if err != nil {
		return err
	}
	password, err := r.Password(name)
	if err != nil {
		return err
	}
	bmc := bmctest.New(machine, bmctest.Options{Username: spec.Username, Password: password, Logger: logger, BootTargets: spec.bootTargets()})
	return serveRedfish(ctx, spec.BMC, certificate, logger, &liar{BMC: bmc, file: r.lieFile(name)})
}

// servesLine is in a BMC's log once it serves, each time that it was started.
const servesLine = "bmc serves"

func serveRedfish(ctx context.Context, address string, certificate tls.Certificate, logger *slog.Logger, handler http.Handler) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "443"))
	if err != nil {
		return fmt.Errorf("listening at %s: %w", address, err)
	}
	server := &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(os.Stderr, "", 0),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	logger.Info(servesLine, "bmc", address)
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving at %s: %w", address, err)
	}
	return nil
}

// Password makes up the BMC's password on first use.
func (r *Rack) Password(name string) (string, error) {
	path := r.Path("machines", name, "bmc.password")
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the BMC's password: %w", err)
	}
	raw := make([]byte, 8) // IPMI takes no more than 16 characters
	rand.Read(raw)
	password := hex.EncodeToString(raw)
	if err := os.MkdirAll(r.Path("machines", name), 0o755); err != nil {
		return "", fmt.Errorf("making up the BMC's password: %w", err)
	}
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("making up the BMC's password: %w", err)
	}
	return password, nil
}

// bmcCertificate is self-signed at the factory, that is on first use, and kept.
func (r *Rack) bmcCertificate(spec Spec) (tls.Certificate, error) {
	path := r.certificateFile(spec.Name)
	if _, err := os.Stat(path); err == nil {
		return tls.LoadX509KeyPair(path, path)
	}
	certificate, err := bmctest.SelfSigned(spec.BMC)
	if err != nil {
		return certificate, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return certificate, fmt.Errorf("keeping the BMC's certificate: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return certificate, fmt.Errorf("keeping the BMC's certificate: %w", err)
	}
	return certificate, nil
}

func (r *Rack) certificateFile(name string) string { return r.Path("machines", name, "bmc.pem") }

// ReplaceBMCCertificate gives the BMC another certificate, as a swapped board or an impostor would have, and returns what
// gives it back its own.
func (r *Rack) ReplaceBMCCertificate(ctx context.Context, name string) (restore func(context.Context) error, err error) {
	own, kept := r.certificateFile(name), r.certificateFile(name)+".own"
	swap := func(ctx context.Context, from, to string) error {
		if err := r.Stop(bmcName(name), 5*time.Second); err != nil {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("replacing the BMC's certificate: %w", err)
		}
		return r.StartBMC(ctx, name)
	}
	if err := swap(ctx, own, kept); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return swap(ctx, kept, own) }, nil
}

func bmcName(machine string) string { return machine + ".bmc" }

// StartBMC starts a machine's BMC and waits until it answers.
func (r *Rack) StartBMC(ctx context.Context, name string) error {
	spec, err := r.SpecOf(name)
	if err != nil {
		return err
	}
	answers := func(ctx context.Context) error {
		_, err := output(r.Inside(ctx, r.Program("lab"), "get", "https://"+spec.BMC+"/redfish/v1"))
		return err
	}
	if spec.Protocol == IPMI {
		err, answers = r.startIPMI(ctx, spec), func(ctx context.Context) error { return r.askIPMI(ctx, spec) }
	} else {
		err = r.start(process{name: bmcName(name), argv: r.labCommand("bmc", name)})
	}
	if err != nil {
		return err
	}
	return r.await(ctx, "the BMC of "+name, 20*time.Second, func(ctx context.Context) error {
		if _, ok := r.Running(bmcName(name)); !ok {
			return fatal(fmt.Errorf("it ended: %s", r.lastLine(bmcName(name))))
		}
		return answers(ctx)
	})
}

// labCommand is this program again, for this rack.
func (r *Rack) labCommand(args ...string) []string {
	return append([]string{r.Program("lab"), "--rack", r.short()}, args...)
}

// Redfish asks a machine's BMC as its administrator, past metald: for looking, and for the power button of a test.
func (r *Rack) Redfish(ctx context.Context, name, method, path, body string) (string, error) {
	spec, err := r.SpecOf(name)
	if err != nil {
		return "", err
	}
	password, err := r.Password(name)
	if err != nil {
		return "", err
	}
	cmd := r.Inside(ctx, r.Program("lab"), "get", "https://"+spec.BMC+path)
	cmd.Env = append(os.Environ(), "LAB_METHOD="+method, "LAB_BODY="+body, "LAB_USER="+spec.Username, "LAB_PASSWORD="+password)
	return output(cmd)
}
