// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that the configuration names and that is broken is told with the key, the file, the line and the field.
func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sound, broken := write("sound.yaml", "jwt: []\n"), write("broken.yaml", "anonymous:\n  enabled: true\n")
	for path, want := range map[string]string{
		"":              "",
		sound:           "",
		broken:          broken + ":4: anonymous.enabled: Invalid value: true: nobody is anonymous here",
		sound + ".gone": "open " + sound + ".gone: no such file or directory",
	} {
		c := DefaultConfig()
		c.API.Authentication = path
		got := ""
		if err := c.CheckFiles(); err != nil {
			got = strings.TrimPrefix(err.Error(), "reading api.authentication of the configuration: ")
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}
