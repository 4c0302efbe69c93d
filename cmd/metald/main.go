// SPDX-License-Identifier: Apache-2.0

// Command metald takes racked machines from dead metal to Ready Kubernetes nodes. The daemon is `metald serve`; all other
// commands are clients of its API, over TLS with a kubeconfig or over the daemon's local socket.
//
// It must not decide anything about a host, nor reach past the API into the daemon's data (but to make images and to find the
// kubeconfig in the data directory).
//
// Start reading at newRootCommand; door.go says how the API is reached, exit.go what the exit codes mean.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	root := newRootCommand()
	err := root.ExecuteContext(ctx)
	stop()
	os.Exit(finish(root, err))
}
