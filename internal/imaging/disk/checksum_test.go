// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"metald.io/metald/api/v1alpha1"
)

// list is a Source of one text.
type list string

func (l list) URL(context.Context, string) (io.ReadCloser, int64, error) {
	return io.NopCloser(strings.NewReader(string(l))), int64(len(l)), nil
}

func (list) File(context.Context, v1alpha1.File, string) (io.ReadCloser, error) {
	return nil, errors.New("no such file")
}

func TestSettleChecksum(t *testing.T) {
	md5, sha256, sha512 := strings.Repeat("ab", 16), strings.Repeat("cd", 32), strings.Repeat("ef", 64)
	for name, c := range map[string]struct {
		checksum, kind, file string
		want, wantKind, err  string
	}{
		"hex":                      {checksum: sha256, kind: "sha256", want: sha256, wantKind: "sha256"},
		"capitals":                 {checksum: strings.ToUpper(sha256), want: sha256, wantKind: "sha256"},
		"auto, by length":          {checksum: sha512, kind: "auto", want: sha512, wantKind: "sha512"},
		"a file, coreutils":        {checksum: "https://x/SUMS", file: md5 + "  other.raw\n" + sha256 + " *os.raw\n", want: sha256, wantKind: "sha256"},
		"a file, BSD":              {checksum: "http://x/SUMS", file: "SHA256 (os.raw) = " + sha256 + "\n", want: sha256, wantKind: "sha256"},
		"a file, a checksum alone": {checksum: "http://x/os.raw.md5", file: md5 + "\n", want: md5, wantKind: "md5"},
		"a file without it":        {checksum: "http://x/SUMS", file: sha256 + "  other.raw\n", err: "no checksum of os.raw"},
		"two alone":                {checksum: "http://x/SUMS", file: sha256 + "\n" + md5 + "\n", err: "no checksum of os.raw"},
		"no hex":                   {checksum: "latest", err: "hex digits or a URL"},
	} {
		got, err := settleChecksum(t.Context(), list(c.file), &v1alpha1.RawImage{URL: "https://x/images/os.raw?y=1", Checksum: c.checksum, ChecksumType: c.kind})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want an error with %q", name, err, c.err)
			}
			continue
		}
		if err != nil || got.Checksum != c.want || got.ChecksumType != c.wantKind {
			t.Errorf("%s: got %+v, %v; want %s %s", name, got, err, c.wantKind, c.want)
		}
	}
}
