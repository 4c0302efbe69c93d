// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// What forbids services must refuse while it is there, and leave no trace of itself, nor eat what was there before.
func TestForbidServices(t *testing.T) {
	for name, before := range map[string]string{"nothing there before": "", "a person's own policy": "#!/bin/sh\nexit 104\n"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "policy-rc.d")
			if before != "" {
				if err := os.WriteFile(file, []byte(before), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			restore, err := forbidServices(file)
			if err != nil {
				t.Fatal(err)
			}
			// Read by a shell: executing a file that was just written can meet "text file busy" under load.
			err = exec.Command("sh", file, "etcd", "start").Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 101 {
				t.Errorf("the policy answers %v, want exit status 101: forbidden", err)
			}
			restore()
			after, err := os.ReadFile(file)
			if before == "" && !errors.Is(err, fs.ErrNotExist) || string(after) != before {
				t.Errorf("afterwards there is %q, %v; want %q", after, err, before)
			}
		})
	}
	// A run that was killed left our own file; the next must not take it for a person's.
	file := filepath.Join(t.TempDir(), "policy-rc.d")
	if _, err := forbidServices(file); err != nil {
		t.Fatal(err)
	}
	restore, err := forbidServices(file)
	if err != nil {
		t.Fatal(err)
	}
	restore()
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("our own policy outlived a second run: %v", err)
	}
}

func TestHostLine(t *testing.T) {
	ready := []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue}}
	until := metav1.NewTime(time.Unix(1, 0))
	for _, c := range []struct {
		name string
		host Host
		want string
	}{
		{"plain", Host{Progress: v1alpha1.HostProgressStatus{State: "available"}}, "available"},
		{"waiting", Host{Progress: v1alpha1.HostProgressStatus{State: "inspecting",
			Waiting: &v1alpha1.Waiting{For: "the agent", Until: &until, Action: "look at its console"}}},
			"inspecting: waiting for the agent (look at its console)"},
		{"one error is told once", Host{Error: "refused", Progress: v1alpha1.HostProgressStatus{State: "registering", LastError: "login refused"}},
			"registering; last error: login refused"},
		{"ready", Host{Conditions: ready, Progress: v1alpha1.HostProgressStatus{State: "provisioned"}}, "provisioned; Ready"},
	} {
		if diff := cmp.Diff(c.want, c.host.Line()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
