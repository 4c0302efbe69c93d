// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"net/url"
	"strings"
)

// splitBootPath takes exactly /boot/{digest}/{name}, unescaped and without a query.
func splitBootPath(u *url.URL) (digest, name string, ok bool) {
	if u.RawPath != "" || u.RawQuery != "" {
		return "", "", false
	}
	rest, ok := strings.CutPrefix(u.Path, BootPath)
	if !ok {
		return "", "", false
	}
	digest, name, ok = strings.Cut(rest, "/")
	return digest, name, ok && isDigest(digest) && isFileName(name)
}

// isDigest is a sha256 in lower-case hex: one spelling, so that a digest can be a file name and a key.
func isDigest(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isFileName keeps what ends up in a URL and in firmware's path parser to letters, digits, dot, dash and underscore.
func isFileName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if !alphanumeric(c) && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
