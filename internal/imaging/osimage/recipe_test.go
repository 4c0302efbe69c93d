// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const goodRecipe = `apiVersion: image.metald.io/v1alpha1
kind: Recipe
name: test
architecture: amd64
kernel:
  package: linux-image-cloud-amd64
  modules: {always: [loop], hardware: [virtio_net]}
packages: [systemd, containerd]
folders: [tree]
files:
- {path: /usr/bin/kubelet, source: "bin:kubelet", mode: "0755"}
containers:
- name: metald.local/pause:1
  entrypoint: [/pause]
  files: [{path: /pause, source: pause, mode: "0755"}]
`

// recipe writes a recipe with its files and loads it.
func recipe(t *testing.T, text string) (*Recipe, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"recipe.yaml": text, "tree/etc/motd": "hello\n", "tree/usr/lib/run": "#!/bin/sh\n", "pause": "pause", "bin/kubelet": "kubelet", "agent": "agent", "stub": "stub", "loader": "loader",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tree/usr/lib/run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../run/net.d", filepath.Join(dir, "tree/etc/net.d")); err != nil {
		t.Fatal(err)
	}
	return LoadRecipe(filepath.Join(dir, "recipe.yaml"))
}

func inputs(r *Recipe) Inputs {
	return Inputs{
		Agent: filepath.Join(r.dir, "agent"), Stub: filepath.Join(r.dir, "stub"), Loader: filepath.Join(r.dir, "loader"),
		Sources: Sources{"bin": filepath.Join(r.dir, "bin")},
	}
}

func TestLoadRecipe(t *testing.T) {
	r, err := recipe(t, goodRecipe)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Kernel.Modules.Hardware, []string{"virtio_net"}; !cmp.Equal(got, want) {
		t.Errorf("hardware modules %v, want %v", got, want)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown key", "packages:", "pakages:", "pakages"},
		{"doubled key", "folders: [tree]", "folders: [tree]\nfolders: [tree]", "folders"},
		{"another kind", "kind: Recipe", "kind: Lock", "Lock"},
		{"another version", "v1alpha1", "v9", "v9"},
		{"bad name", "name: test", "name: Test_1", "Test_1"},
		{"bad architecture", "amd64\nkernel", "x86\nkernel", "x86"},
		{"no kernel", "package: linux-image-cloud-amd64", "package: \"\"", "kernel.package"},
		{"an option for a package", "[systemd,", "[--reinstall,", "--reinstall"},
		{"a path that climbs out", "/usr/bin/kubelet", "/usr/../../kubelet", "kubelet"},
		{"a relative path", "/usr/bin/kubelet", "usr/bin/kubelet", "usr/bin/kubelet"},
		{"bad mode", `"0755"}`, `"4755"}`, "4755"},
		{"no source", `source: pause`, `source: ""`, "no source"},
		{"no entrypoint", "entrypoint: [/pause]", "entrypoint: []", "entrypoint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(goodRecipe, c.old, c.new, 1)
			if text == goodRecipe {
				t.Fatal("the case changes nothing")
			}
			if _, err := recipe(t, text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestExamples loads the recipes that come with metald, with all their folders.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../../deploy/image/*/recipe.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("found recipes %v (%v), want lab and node", files, err)
	}
	for _, f := range files {
		r, err := LoadRecipe(f)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, folder := range r.Folders {
			if found, err := folderFiles(filepath.Join(r.dir, folder)); err != nil || len(found) == 0 {
				t.Errorf("%s: folder %s holds %d files (%v)", f, folder, len(found), err)
			}
		}
	}
}
