// SPDX-License-Identifier: Apache-2.0

package early

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestPresent(t *testing.T) {
	missing := fmt.Errorf("loading module tpm_tis: %w", unix.ENODEV)
	broken := fmt.Errorf("loading module nvme: %w", unix.ENOEXEC)
	for _, test := range []struct {
		name string
		err  error
		want string
	}{
		{"nothing", nil, ""},
		{"no hardware", missing, ""},
		{"no hardware, twice", errors.Join(missing, errors.Join(missing)), ""},
		{"a broken module", errors.Join(missing, errors.Join(broken, missing)), broken.Error()},
	} {
		got := ""
		if err := present(test.err); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modules")
	if err := os.WriteFile(file, []byte("loop\n\n# for the root\n dm-verity \nerofs"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := lines(file)
	if diff := cmp.Diff([]string{"loop", "dm-verity", "erofs"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
