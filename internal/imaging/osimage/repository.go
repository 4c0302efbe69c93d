// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// suite is the one suite of the repository that a root is made from.
const suite = "locked"

// repository makes an apt repository below dir that holds just the locked packages, so that the package manager cannot
// choose anything else. The files are links into the pool.
func repository(ctx context.Context, dir, pool string, l *Lock) error {
	index := filepath.Join(dir, "dists", suite, "main", "binary-"+l.Architecture)
	if err := os.MkdirAll(index, 0o755); err != nil {
		return fmt.Errorf("making the package repository: %w", err)
	}
	var text strings.Builder
	for _, p := range l.Packages {
		deb := filepath.Join(dir, p.File())
		if err := placeFile(filepath.Join(pool, p.File()), deb); err != nil {
			return fmt.Errorf("making the package repository: %w", err)
		}
		control, err := exec.CommandContext(ctx, "dpkg-deb", "--field", deb).Output()
		if err != nil {
			return fmt.Errorf("reading package %s: %w", p.Name, err)
		}
		fmt.Fprintf(&text, "%s\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n", strings.TrimRight(string(control), "\n"), p.File(), p.SizeBytes, p.SHA256)
	}
	if err := os.WriteFile(filepath.Join(index, "Packages"), []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("making the package repository: %w", err)
	}
	release := fmt.Sprintf("Suite: %s\nCodename: %s\nComponents: main\nArchitectures: %s\nSHA256:\n %s %d main/binary-%s/Packages\n",
		suite, suite, l.Architecture, textDigest([]byte(text.String())), text.Len(), l.Architecture)
	if err := os.WriteFile(filepath.Join(dir, "dists", suite, "Release"), []byte(release), 0o644); err != nil {
		return fmt.Errorf("making the package repository: %w", err)
	}
	return nil
}

// placeFile links a file, or copies it to another file system.
func placeFile(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	return copyFile(from, to, 0o644)
}
