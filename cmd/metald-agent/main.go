// SPDX-License-Identifier: Apache-2.0

// Command metald-agent is what runs on a host. One static program does it all; how it is run says what it is:
//
//   - as the first program of a ramdisk it brings the machine on the network, proves to the daemon which machine it is,
//     and carries out orders (ramdisk.go);
//   - as the first program of an image's initramfs, which the kernel command line's metald.root tells, it fetches and
//     verifies the image's root and starts it (initrd.go);
//   - `metald-agent os` is the image's unit that joins the machine to its cluster (os.go);
//   - `metald-agent probe` prints the facts of this machine (probe.go).
//
// It must not know what orders are for: internal/agent carries them out. Here the parts are put together with the real
// machine, and nothing else opens a socket or a device.
//
// Start reading at main, then at the file that it sends you to.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metald.io/metald/internal/imaging/diskless"
)

// Set by the linker in a release; otherwise the version control's stamp is used.
var (
	version = ""
	built   = ""
)

const usage = `metald-agent runs on a host of metald.

  metald-agent os              join this machine to its cluster, as the unit of an OS image does
  metald-agent probe [-o json] print what this machine is made of
  metald-agent version         print the version

As the first program of an initramfs (/init) it needs no argument.
`

func main() {
	if len(os.Args) < 2 {
		if os.Getpid() == 1 {
			first()
		}
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	var err error
	switch os.Args[1] {
	case "os":
		err = runOS(ctx)
	case "probe":
		err = probe(os.Stdout, os.Args[2:])
	case "version", "--version":
		fmt.Println(Version())
	case "help", "-h", "--help":
		fmt.Print(usage)
	default:
		if os.Getpid() == 1 { // the kernel hands on the words of its command line that it does not know
			first()
		}
		fmt.Fprintf(os.Stderr, "metald-agent: there is no command %q\n\n%s", os.Args[1], usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "metald-agent: %v\n", err)
		os.Exit(1)
	}
}

// first is the first program of the machine. It never returns: the kernel would panic.
func first() {
	line, err := start()
	if err == nil {
		var root diskless.Root
		var image bool
		root, image, err = diskless.ParseCommandLine(line)
		switch {
		case err != nil:
		case image:
			err = initrd(root)
		default:
			err = ramdisk()
		}
	}
	lost(err)
}

// Version names this build.
func Version() string {
	if version != "" {
		return version
	}
	revision, dirty := setting("vcs.revision"), setting("vcs.modified")
	if revision == "" {
		return "devel"
	}
	if dirty == "true" {
		return "devel-" + revision[:min(12, len(revision))] + "-modified"
	}
	return "devel-" + revision[:min(12, len(revision))]
}

// Built is when this program was made: no clock that stands before it is right. It is zero where nobody knows.
func Built() time.Time {
	text := built
	if text == "" {
		text = setting("vcs.time")
	}
	at, _ := time.Parse(time.RFC3339, text) // zero when it is none
	return at
}

func setting(key string) string {
	info, found := debug.ReadBuildInfo()
	if !found {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return strings.TrimSpace(s.Value)
		}
	}
	return ""
}
