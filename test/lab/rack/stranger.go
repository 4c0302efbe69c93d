// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"metald.io/metald/internal/bmc/bmctest"
)

// stranger is the name of the process behind StrangerBMC.
const stranger = "stranger.bmc"

// ServeStranger is a BMC in the rack's management network that nobody listed: somebody else's machine, which runs something.
// It lets in whoever knows the rack's first password, so that a client that tries it out would get far.
func (r *Rack) ServeStranger(ctx context.Context, address string) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	machine := bmctest.NewMemoryMachine(bmctest.Description{
		Manufacturer: "metald", Model: "somebody else's machine", SerialNumber: "ELSE0001",
		UUID: "6d6574a1-e15e-8000-8000-000000000001", MACs: []string{"52:54:00:6d:6c:ee"},
	})
	if err := machine.PowerOn(ctx); err != nil {
		return err
	}
	certificate, err := bmctest.SelfSigned(address)
	if err != nil {
		return err
	}
	password, err := r.Password(r.Spec(0).Name)
	if err != nil {
		return err
	}
	bmc := bmctest.New(machine, bmctest.Options{Username: r.Spec(0).Username, Password: password})
	return serveRedfish(ctx, address, certificate, logger, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		logger.Info("stranger met", "method", q.Method, "path", q.URL.Path,
			"credentials", q.Header.Get("Authorization") != "" || q.Header.Get("X-Auth-Token") != "" || q.Method == http.MethodPost)
		bmc.ServeHTTP(w, q)
	}))
}

// startStranger starts it and waits until it serves.
func (r *Rack) startStranger(ctx context.Context) error {
	if err := r.start(process{name: stranger, argv: r.labCommand("stranger", StrangerBMC)}); err != nil {
		return err
	}
	return r.await(ctx, "the stranger's BMC", 20*time.Second, func(context.Context) error {
		if _, ok := r.Running(stranger); !ok {
			return fatal(fmt.Errorf("it ended: %s", r.lastLine(stranger)))
		}
		text, err := os.ReadFile(r.Log(stranger))
		if err == nil && !strings.Contains(string(text), servesLine) {
			err = fmt.Errorf("it does not serve yet")
		}
		return err
	})
}

// StrangerMet is what the stranger's BMC has met, a line each.
func (r *Rack) StrangerMet() ([]string, error) {
	text, err := os.ReadFile(r.Log(stranger))
	if err != nil {
		return nil, fmt.Errorf("reading the stranger's log: %w", err)
	}
	var met []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "stranger met") {
			met = append(met, strings.TrimSpace(line))
		}
	}
	return met, nil
}
