// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// The few words of the OCI image specification (v1.1) that an archive of one layer needs.
const (
	ociIndexType    = "application/vnd.oci.image.index.v1+json"
	ociManifestType = "application/vnd.oci.image.manifest.v1+json"
	ociConfigType   = "application/vnd.oci.image.config.v1+json"
	ociLayerType    = "application/vnd.oci.image.layer.v1.tar"
	ociNameKey      = "io.containerd.image.name"
	ociReferenceKey = "org.opencontainers.image.ref.name"
)

type ociDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// containerArchive makes an OCI image archive (a layout in a tar) of a container recipe: one layer, uncompressed, since
// the root is compressed as a whole. Equal files give equal bytes.
func (b *builder) containerArchive(c ContainerRecipe) ([]byte, error) {
	var files []tarFile
	for _, f := range c.Files {
		i := slices.IndexFunc(b.files, func(l LockedFile) bool { return l.Role == "container "+c.Name+" "+f.Path })
		if i < 0 {
			return nil, fmt.Errorf("file %s is not pinned", f.Path)
		}
		data, err := os.ReadFile(b.files[i].source)
		if err != nil {
			return nil, err
		}
		files = append(files, tarFile{name: strings.TrimPrefix(f.Path, "/"), mode: b.files[i].mode, data: data})
	}
	return ociArchive(c.Name, b.lock.Architecture, c.Entrypoint, files)
}

type tarFile struct {
	name string
	mode fs.FileMode
	data []byte
}

func ociArchive(name, arch string, entrypoint []string, files []tarFile) ([]byte, error) {
	layer, err := tarOf(withFolders(files))
	if err != nil {
		return nil, err
	}
	blobs := map[string][]byte{}
	put := func(kind string, data []byte) ociDescriptor {
		digest := textDigest(data)
		blobs[digest] = data
		return ociDescriptor{MediaType: kind, Digest: "sha256:" + digest, Size: len(data)}
	}
	putJSON := func(kind string, v any) (ociDescriptor, error) {
		data, err := json.Marshal(v)
		if err != nil {
			return ociDescriptor{}, err
		}
		return put(kind, data), nil
	}
	layerAt := put(ociLayerType, layer)
	config, err := putJSON(ociConfigType, map[string]any{
		"architecture": arch, "os": "linux",
		"config": map[string]any{"Entrypoint": entrypoint, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerAt.Digest}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := putJSON(ociManifestType, map[string]any{
		"schemaVersion": 2, "mediaType": ociManifestType, "config": config, "layers": []ociDescriptor{layerAt},
	})
	if err != nil {
		return nil, err
	}
	manifest.Annotations = map[string]string{ociNameKey: name, ociReferenceKey: name[strings.LastIndex(name, ":")+1:]}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndexType, "manifests": []ociDescriptor{manifest}})
	if err != nil {
		return nil, err
	}
	out := []tarFile{
		{name: "oci-layout", mode: 0o644, data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", mode: 0o644, data: index},
	}
	for digest, data := range blobs {
		out = append(out, tarFile{name: "blobs/sha256/" + digest, mode: 0o644, data: data})
	}
	return tarOf(withFolders(out))
}

// withFolders adds the folders above each file and sorts by name.
func withFolders(files []tarFile) []tarFile {
	have := map[string]bool{}
	var out []tarFile
	for _, f := range files {
		for dir := path.Dir(f.name); dir != "."; dir = path.Dir(dir) {
			if !have[dir] {
				have[dir] = true
				out = append(out, tarFile{name: dir + "/", mode: fs.ModeDir | 0o755})
			}
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b tarFile) int { return strings.Compare(a.name, b.name) })
	return out
}

func tarOf(files []tarFile) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: int64(f.mode.Perm()), Size: int64(len(f.data)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if f.mode.IsDir() {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
