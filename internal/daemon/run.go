// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// Options is what Run is started with.
type Options struct {
	Config  Config
	DataDir string
	Logger  *slog.Logger
}

// Run serves until ctx ends.
func Run(ctx context.Context, o Options) error {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("making data directory: %w", err)
	}
	pki, err := EnsurePKI(o.DataDir, o.Config.CertificateNames(), time.Now())
	if err != nil {
		return err
	}
	if err := pki.WriteAdminKubeconfig(o.Config.ServerURL()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
