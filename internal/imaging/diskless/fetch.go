// SPDX-License-Identifier: Apache-2.0

package diskless

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"metald.io/metald/internal/imaging/fetch"
)

// StatusError is an answer that is neither the file nor a part of it.
type StatusError = fetch.StatusError

// Fetch gets the root into the file at path by GET base/boot/SHA256/root.img, and checks its length and digest while it
// streams. A connection that breaks, stalls or is refused is taken up again where it ended, until ctx ends: a daemon may
// restart meanwhile. A wrong length or digest is a *MismatchError; a client error (4xx) is a *StatusError; both are final.
// progress may be nil; it is told the bytes so far, often.
func Fetch(ctx context.Context, client *http.Client, base string, root Root, path string, progress func(done int64)) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o400)
	if err != nil {
		return fmt.Errorf("making the root file: %w", err)
	}
	defer f.Close()
	if progress == nil {
		progress = func(int64) {}
	}
	reader, err := fetch.Open(ctx, fetch.File{
		Client: client, URL: strings.TrimSuffix(base, "/") + "/boot/" + root.SHA256 + "/root.img", Size: root.SizeBytes,
	})
	if err != nil {
		return mismatch(err)
	}
	defer reader.Close()
	digest := fetch.NewDigest(sha256.New())
	err = copyRoot(f, reader, digest, progress)
	got := hex.EncodeToString(digest.Sum())
	if err != nil {
		return err
	}
	if got != root.SHA256 {
		return &MismatchError{What: "SHA-256 of the root", Got: got, Want: root.SHA256}
	}
	return f.Close()
}

func copyRoot(f *os.File, from io.Reader, digest *fetch.Digest, progress func(int64)) error {
	var done int64
	for {
		buf := digest.Buffer()
		n, err := from.Read(buf)
		digest.Take(buf[:n])
		if n > 0 {
			if _, err := f.Write(buf[:n]); err != nil {
				return fmt.Errorf("writing the root file: %w", err)
			}
			done += int64(n)
			progress(done)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return mismatch(err)
		}
	}
}

// mismatch tells a root of another length, which the host must refuse, from a server that is not there.
func mismatch(err error) error {
	if length, ok := errors.AsType[*fetch.LengthError](err); ok {
		return &MismatchError{What: "length of the root", Got: strconv.FormatInt(length.Got, 10), Want: strconv.FormatInt(length.Want, 10)}
	}
	if changed, ok := errors.AsType[*fetch.ChangedError](err); ok {
		return &MismatchError{What: "the root", Got: "another file: " + changed.URL + " changed", Want: "one file from its beginning to its end"}
	}
	return fmt.Errorf("fetching the root: %w", err)
}
