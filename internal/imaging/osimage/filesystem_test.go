// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"metald.io/metald/internal/imaging/diskless"
)

// sealed is a root of odd length, sealed.
func sealed(t *testing.T, seed string) (string, diskless.Root) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "root.img")
	if err := os.WriteFile(file, bytes.Repeat([]byte("block of text "), 100_000), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := seal(file, seed)
	if err != nil {
		t.Fatal(err)
	}
	return file, root
}

func TestSealIsTheSameTwice(t *testing.T) {
	_, a := sealed(t, "seed")
	_, b := sealed(t, "seed")
	_, c := sealed(t, "another")
	if a != b {
		t.Errorf("one seed gives %v and %v", a, b)
	}
	if a.RootHash == c.RootHash {
		t.Error("another seed gives the same root hash: the salt is not in it")
	}
	if line, found, err := diskless.ParseCommandLine(a.CommandLine()); err != nil || !found || line != a {
		t.Errorf("the command line reads back as %v, %v, %v", line, found, err)
	}
}

// TestSealAgainstVeritysetup asks the program that the format comes from.
func TestSealAgainstVeritysetup(t *testing.T) {
	program, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("veritysetup (Debian: cryptsetup-bin) is not here")
	}
	file, root := sealed(t, "seed")
	verify := func() error {
		out, err := exec.Command(program, "verify", file, file, root.RootHash, fmt.Sprintf("--hash-offset=%d", root.HashOffset)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := verify(); err != nil {
		t.Fatalf("it refuses the whole root: %v", err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0}, 500_000); err != nil {
		t.Fatal(err)
	}
	if err := verify(); err == nil {
		t.Error("it takes a root with a changed byte")
	}
}

func TestContainerArchive(t *testing.T) {
	build := func() []byte {
		b, err := ociArchive("metald.local/pause:1", "amd64", []string{"/bin/pause"}, []tarFile{{name: "bin/pause", mode: 0o755, data: []byte("program")}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	archive := build()
	if !bytes.Equal(archive, build()) {
		t.Error("a second archive differs")
	}
	files := untar(t, archive)
	blob := func(d ociDescriptor) []byte {
		data, ok := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if !ok || len(data) != d.Size || "sha256:"+textDigest(data) != d.Digest {
			t.Fatalf("blob %v is %d bytes of digest %s (found: %v)", d, len(data), textDigest(data), ok)
		}
		return data
	}
	var index struct{ Manifests []ociDescriptor }
	parse(t, files["index.json"], &index)
	if got, want := index.Manifests[0].Annotations[ociNameKey], "metald.local/pause:1"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	var manifest struct {
		Config ociDescriptor
		Layers []ociDescriptor
	}
	parse(t, blob(index.Manifests[0]), &manifest)
	var config struct {
		Architecture string
		Config       struct{ Entrypoint []string }
		RootFS       struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	parse(t, blob(manifest.Config), &config)
	if len(manifest.Layers) != 1 || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("diff ids %v do not fit layers %v", config.RootFS.DiffIDs, manifest.Layers)
	}
	if config.Architecture != "amd64" || strings.Join(config.Config.Entrypoint, " ") != "/bin/pause" {
		t.Errorf("config %+v", config)
	}
	if layer := untar(t, blob(manifest.Layers[0])); string(layer["bin/pause"]) != "program" {
		t.Errorf("layer holds %v", layer)
	}
}

func untar(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = data
	}
}

func parse(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

func TestLoadImageRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), ImageName)
	for name, text := range map[string]string{
		"another kind": "apiVersion: metald.io/v1alpha1\nkind: NodePool\nmetadata: {name: x}\n",
		"no name":      "apiVersion: metald.io/v1alpha1\nkind: Image\n",
		"unknown key":  "apiVersion: metald.io/v1alpha1\nkind: Image\nmetadata: {name: x}\nspec: {rootHsh: x}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if i, err := LoadImage(file); err == nil {
				t.Errorf("read %v, want an error", i)
			}
		})
	}
}
