// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"metald.io/metald/internal/daemon"
)

func newServeCommand(a *access) *cobra.Command {
	var path string
	var check bool
	c := &cobra.Command{
		Use: "serve", Short: "Run the daemon",
		Long: `Run the daemon until it is told to stop by SIGINT or SIGTERM.

All its state lies in the data directory, which one daemon holds at a time. Without a configuration file it serves its API on
loopback and touches no network.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := daemon.LoadConfig(path)
			fellBack := errors.Is(err, daemon.ErrNoConfig) && !c.Flags().Changed("config")
			if fellBack {
				config = daemon.DefaultConfig()
			} else if err != nil {
				return err
			}
			if err := config.CheckFiles(); err != nil {
				return err
			}
			if check {
				c.Println("the configuration is sound")
				return nil
			}
			// Passwords and keys are in this process's memory: it must leave no core dump, and no neighbour may read it.
			if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
				return fmt.Errorf("forbidding core dumps: %w", err)
			}
			logger := newLogger(config.Log)
			klog.SetSlogLogger(newLogger(librariesLog(config.Log)).With("from", "kubernetes"))
			if fellBack {
				logger.Warn("no configuration file, serving the API on loopback alone", "config", path)
			}
			return daemon.Run(c.Context(), daemon.Options{Config: config, DataDir: a.dataDir, Logger: logger})
		},
	}
	c.Flags().StringVar(&path, "config", defaultConfig, "configuration file")
	c.Flags().BoolVar(&check, "check", false, "read and check the configuration, then stop")
	return c
}

// librariesLog is for the Kubernetes libraries, whose everyday messages are about themselves and not about any host.
func librariesLog(c daemon.LogConfig) daemon.LogConfig {
	if c.Level == "info" {
		c.Level = "warn"
	}
	return c
}

// newLogger writes to stderr, where journald and a terminal both expect it.
func newLogger(c daemon.LogConfig) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // LoadConfig let no other word pass
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
