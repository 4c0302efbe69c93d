// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/md5"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// writeTarball writes the tree below root under one folder name. Bytes follow from the tree alone.
func writeTarball(to, root, name string, built time.Time) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", filepath.Base(to), err)
		}
	}()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.DefaultCompression) // without name and time
	if err != nil {
		return err
	}
	w := tar.NewWriter(z)
	add := func(path string, info fs.FileInfo) error {
		h := &tar.Header{Name: filepath.Join(name, path), Mode: int64(info.Mode().Perm()), ModTime: built, Format: tar.FormatUSTAR,
			Uname: "root", Gname: "root", Typeflag: tar.TypeReg, Size: info.Size()}
		var data []byte
		switch {
		case info.IsDir():
			h.Typeflag, h.Size, h.Name = tar.TypeDir, 0, h.Name+"/"
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(filepath.Join(root, path))
			if err != nil {
				return err
			}
			h.Typeflag, h.Size, h.Linkname, h.Mode = tar.TypeSymlink, 0, target, 0o777
		default:
			var err error
			if data, err = os.ReadFile(filepath.Join(root, path)); err != nil {
				return err
			}
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	if err := walkSorted(root, add); err != nil {
		return err
	}
	return errors.Join(w.Close(), z.Close(), f.Close())
}

// writeSums writes the digests of all files below root but itself, for `sha256sum --check` in root.
func writeSums(to, root string) error {
	var text strings.Builder
	err := walkSorted(root, func(path string, info fs.FileInfo) error {
		if !info.Mode().IsRegular() || filepath.Join(root, path) == to {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%s  %s\n", digest(data), path)
		return nil
	})
	if err != nil {
		return fmt.Errorf("summing files: %w", err)
	}
	return writeFile(to, []byte(text.String()), 0o644)
}

// deb holds the scripts that dpkg runs.
//
//go:embed deb
var deb embed.FS

const controlText = `Package: metald
Version: %s
Architecture: %s
Maintainer: metald maintainers
Installed-Size: %d
Depends: passwd
Section: admin
Priority: optional
Description: take racked machines from dead metal to Ready Kubernetes nodes
 One daemon finds servers over Redfish and IPMI, boots them over the network,
 inspects them, installs an immutable OS image and joins them to a Kubernetes
 control plane.
 .
 All that a site without internet needs is in this package: the programs are
 static, and the ramdisk that machines are inspected with is made on the site by
 adding the site's certificate authority.
`

// writeDeb puts the tree below root, with dpkg's own files beside it, into a Debian package.
func (r *release) writeDeb(ctx context.Context, root, arch string) error {
	version := debVersion(r.version, r.built)
	control := filepath.Join(root, "DEBIAN")
	if err := os.Mkdir(control, 0o755); err != nil {
		return fmt.Errorf("writing the Debian package: %w", err)
	}
	var size int64
	var sums strings.Builder
	err := walkSorted(root, func(path string, info fs.FileInfo) error {
		if !info.Mode().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		size += info.Size()
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(data), path) // dpkg --verify knows nothing newer
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing the Debian package: %w", err)
	}
	files := map[string][]byte{"control": fmt.Appendf(nil, controlText, version, arch, size>>10), "md5sums": []byte(sums.String())}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if files[script], err = deb.ReadFile("deb/" + script); err != nil {
			return fmt.Errorf("writing the Debian package: %w", err)
		}
	}
	for name, data := range files {
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(name, "p") {
			mode = 0o755
		}
		if err := writeFile(filepath.Join(control, name), data, mode); err != nil {
			return err
		}
	}
	if err := settle(control, r.built); err != nil {
		return err
	}
	// One thread: with several, xz cuts the data otherwise.
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--root-owner-group", "-Zxz", "-z2", "--threads-max=1", "--build", root,
		filepath.Join(r.out, fmt.Sprintf("metald_%s_%s.deb", version, arch)))
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.built.Unix()))
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("writing the Debian package: %w", err)
	}
	return nil
}

var (
	tagged = regexp.MustCompile(`^v?(\d+\.\d+[A-Za-z0-9.~]*)(?:-([A-Za-z][A-Za-z0-9.]*))?(?:-(\d+)-g([0-9a-f]+))?$`)
	odd    = regexp.MustCompile(`[^A-Za-z0-9.]+`)
)

// debVersion is a version that dpkg sorts rightly: what git describe says of a tag, or the commit's time where there is none
// yet, below every tag to come.
func debVersion(version string, built time.Time) string {
	clean, dirty := strings.CutSuffix(version, "-dirty")
	m := tagged.FindStringSubmatch(clean)
	if m == nil {
		return "0~" + built.Format("20060102150405") + "." + odd.ReplaceAllString(version, ".")
	}
	out := m[1]
	if m[2] != "" {
		out += "~" + m[2] // a candidate comes before its release
	}
	if m[3] != "" {
		out += "+" + m[3] + "." + m[4]
	}
	if dirty {
		out += "+dirty"
	}
	return out
}
