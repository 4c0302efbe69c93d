// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

// program is the daemon that the tests start; built once for all of them where none is given.
var program = flag.String("metald", "", "a metald that is built already, as an absolute path")

// TestMain is kubectl where it is called by that name, and the tests otherwise.
func TestMain(m *testing.M) {
	testscript.Main(built{m}, map[string]func(){"kubectl": kubectl})
}

// kubectl is the program of that name, as k8s.io/kubernetes builds it.
func kubectl() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}

// built has a metald for the tests, and removes what it built after them.
type built struct{ tests testscript.TestingM }

func (b built) Run() int {
	flag.Parse()
	if *program != "" {
		return b.tests.Run()
	}
	dir, err := os.MkdirTemp("", "metald-clients")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a place for metald:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	*program = filepath.Join(dir, "metald")
	build := exec.Command("go", "build", "-o", *program, "./cmd/metald")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building metald: %v\n%s", err, out)
		return 1
	}
	return b.tests.Run()
}
