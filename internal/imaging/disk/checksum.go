// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"

	"metald.io/metald/api/v1alpha1"
)

// checksumFileBytes is how much of a file of checksums is read.
const checksumFileBytes = 1 << 20

// settleChecksum answers the plan with its checksum and the checksum's type spelt out. Metal3's users may give the URL of a
// file that lists checksums, and leave the type to be told by the length.
func settleChecksum(ctx context.Context, source Source, plan *v1alpha1.RawImage) (*v1alpha1.RawImage, error) {
	settled := *plan
	if strings.HasPrefix(plan.Checksum, "http://") || strings.HasPrefix(plan.Checksum, "https://") {
		body, _, err := source.URL(ctx, plan.Checksum)
		if err != nil {
			return nil, fmt.Errorf("fetching the checksum: %w", err)
		}
		defer body.Close()
		text, err := io.ReadAll(io.LimitReader(body, checksumFileBytes))
		if err != nil {
			return nil, fmt.Errorf("fetching the checksum: %w", err)
		}
		name := ""
		if u, err := url.Parse(plan.URL); err == nil {
			name = path.Base(u.Path)
		}
		if settled.Checksum = findChecksum(string(text), name); settled.Checksum == "" {
			return nil, &ImageError{What: "checksum file " + plan.Checksum, Got: "no checksum of " + name, Want: "a line with it"}
		}
	}
	settled.Checksum = strings.ToLower(strings.TrimSpace(settled.Checksum))
	if _, err := hex.DecodeString(settled.Checksum); err != nil {
		return nil, &ImageError{What: "checksum", Got: fmt.Sprintf("%.80q", settled.Checksum), Want: "hex digits or a URL"}
	}
	if settled.ChecksumType == "" || settled.ChecksumType == "auto" {
		settled.ChecksumType = map[int]string{32: "md5", 64: "sha256", 128: "sha512"}[len(settled.Checksum)]
	}
	return &settled, nil
}

// findChecksum reads what md5sum, sha256sum and their BSD cousins write: "HEX  name", "HEX *name" or "SHA256 (name) = HEX".
// A file with one checksum and no name is for the image too.
func findChecksum(text, name string) string {
	var alone []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 1 && isChecksum(fields[0]):
			alone = append(alone, fields[0])
		case len(fields) == 2 && isChecksum(fields[0]) && path.Base(strings.TrimPrefix(fields[1], "*")) == name:
			return fields[0]
		case len(fields) == 4 && fields[2] == "=" && isChecksum(fields[3]) && path.Base(strings.Trim(fields[1], "()")) == name:
			return fields[3]
		}
	}
	if len(alone) == 1 {
		return alone[0]
	}
	return ""
}

func isChecksum(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && (len(s) == 32 || len(s) == 64 || len(s) == 128)
}
