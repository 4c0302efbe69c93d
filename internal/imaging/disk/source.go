// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/fetch"
)

// Source opens what is written to a disk.
type Source interface {
	// File opens a file of the boot server's by its digest. The name is for the server's log.
	File(ctx context.Context, file v1alpha1.File, name string) (io.ReadCloser, error)
	// URL opens a user's own image; the length in bytes is -1 where nobody knows it.
	URL(ctx context.Context, url string) (io.ReadCloser, int64, error)
}

// HTTP is a Source over HTTP. A connection that breaks is taken up where it ended.
type HTTP struct {
	// Client fetches from the boot server, Users a user's own image; Users nil is Client.
	Client, Users *http.Client
	// Base is the boot server's URL, without /boot.
	Base string
	// Patience is how long no byte may come; 0 is until the context ends.
	Patience time.Duration
}

// File opens Base/boot/SHA256/name.
func (s *HTTP) File(ctx context.Context, file v1alpha1.File, name string) (io.ReadCloser, error) {
	r, err := fetch.Open(ctx, fetch.File{
		Client: s.Client, URL: strings.TrimSuffix(s.Base, "/") + "/boot/" + file.SHA256 + "/" + name, Size: file.SizeBytes, Patience: s.Patience,
	})
	if err != nil {
		return nil, err // a typed nil would not be one
	}
	return r, nil
}

// URL opens a user's own image.
func (s *HTTP) URL(ctx context.Context, url string) (io.ReadCloser, int64, error) {
	client := s.Users
	if client == nil {
		client = s.Client
	}
	r, err := fetch.Open(ctx, fetch.File{Client: client, URL: url, Patience: s.Patience})
	if err != nil {
		return nil, 0, err
	}
	return r, r.Length(), nil
}

// whole reads a small file and checks it.
func whole(ctx context.Context, source Source, file v1alpha1.File, name string, most int64) ([]byte, error) {
	if file.SizeBytes > most {
		return nil, &ImageError{What: "size of " + name, Got: strconv.FormatInt(file.SizeBytes, 10), Want: "at most " + strconv.FormatInt(most, 10)}
	}
	r, err := source.File(ctx, file, name)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", name, imageFault(err))
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, file.SizeBytes+1)); err != nil {
		return nil, fmt.Errorf("fetching %s: %w", name, imageFault(err))
	}
	sum := sha256.Sum256(b.Bytes())
	if got := hex.EncodeToString(sum[:]); got != file.SHA256 {
		return nil, &ImageError{What: "SHA-256 of " + name, Got: got, Want: file.SHA256}
	}
	return b.Bytes(), nil
}
