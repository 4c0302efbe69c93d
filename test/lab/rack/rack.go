// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The lab's addresses. They exist inside its network namespace only, so every rack has the same ones.
const (
	Bridge       = "mlab0"
	Gateway      = "172.22.0.1"
	Prefix       = "172.22.0.0/24"
	RangeFirst   = "172.22.0.100"
	RangeLast    = "172.22.0.199"
	APIServer    = "https://" + Gateway + ":6443"
	MetaldAPI    = Gateway + ":8443"
	MetaldAgents = Gateway + ":8444"
	MetaldBoot   = Gateway + ":80"
	PodCIDR      = "10.244.0.0/16"
	ServiceCIDR  = "10.96.0.0/16"
	Kubernetes   = "v1.36.3"

	// BMCs has the addresses of all BMCs, the stranger's too, and nothing else: it is what metald sweeps.
	BMCs = "172.22.0.8/29"
	// StrangerBMC is a BMC that nobody lists. It must meet nothing but reads of its service root.
	StrangerBMC = "172.22.0.14"
	firstBMC    = 10
)

// Rack is one virtual rack.
type Rack struct {
	// Name is the network namespace's name.
	Name string
	// Repo is the root of the source tree.
	Repo string
	// Dir holds this rack's state; it can be removed when the rack is down.
	Dir string
	// Cache holds what takes long to build and is shared by all racks of this tree.
	Cache string
	// Hosts is how many machines it has.
	Hosts int
	// Out is where progress is told.
	Out io.Writer

	// Spoil may be set by a test to change the machine's description before it is started for the first time.
	Spoil func(*Spec)
}

// New finds the source tree above the working directory and describes a rack of that name; name "lab" is what `make lab`
// starts.
func New(name string, out io.Writer) (*Rack, error) {
	repo, err := sourceTree()
	if err != nil {
		return nil, err
	}
	return &Rack{
		Name:  "metald-" + name,
		Repo:  repo,
		Dir:   filepath.Join(repo, "build", "lab", "racks", name),
		Cache: filepath.Join(repo, "build", "lab"),
		Hosts: len(models),
		Out:   out,
	}, nil
}

func sourceTree() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the working directory: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		text, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module metald.io/metald\n") {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("finding metald's source tree: no go.mod of it at or above %s", dir)
		}
	}
}

// short is the name that `lab --rack` takes.
func (r *Rack) short() string { return strings.TrimPrefix(r.Name, "metald-") }

// Path joins names below the rack's state directory.
func (r *Rack) Path(names ...string) string {
	return filepath.Join(append([]string{r.Dir}, names...)...)
}

// Program is the path of a program that the lab built for the control plane.
func (r *Rack) Program(name string) string { return filepath.Join(r.Cache, "bin", name) }

// Metald is the path of the daemon under test.
func (r *Rack) Metald() string { return filepath.Join(r.Repo, "bin", "metald") }

// Agent is the path of the agent under test.
func (r *Rack) Agent() string { return filepath.Join(r.Repo, "bin", "metald-agent") }

// Data is the data directory of the rack's metald.
func (r *Rack) Data() string { return r.Path("data") }

// AdminKubeconfig is the control plane's administrator, MetaldKubeconfig is metald's.
func (r *Rack) AdminKubeconfig() string { return r.Path("kubernetes", "admin.conf") }

// MetaldKubeconfig is written by metald into its data directory.
func (r *Rack) MetaldKubeconfig() string { return filepath.Join(r.Data(), "admin.kubeconfig") }

// sockets is a directory with a short path: a unix socket's path has at most 107 bytes, and a source tree may lie deep.
func (r *Rack) sockets() string { return filepath.Join("/run", r.Name) }

func (r *Rack) say(format string, args ...any) { fmt.Fprintf(r.Out, format+"\n", args...) }

// needRoot says early what would fail late.
func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("starting the lab needs root: it makes a network namespace and network devices in it")
	}
	return nil
}
