// SPDX-License-Identifier: Apache-2.0

package early

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// SetClock mends a clock that cannot be right, so that certificates can be checked: one that stands before this program
// was built, or outside the time in which the site's CA is good. It takes the time from the Date header of the plain
// HTTP server at url. That answer is not proved, so it is believed only as far as the clock could not have been right
// and the new time could be; a lie costs a refused certificate and nothing more. It says by how much it moved the clock,
// 0 when it did not.
func SetClock(ctx context.Context, client *http.Client, url string, built time.Time, authority []byte) (time.Duration, error) {
	from, until, err := bounds(built, authority)
	if err != nil {
		return 0, err
	}
	if now := time.Now(); now.After(from) && now.Before(until) {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return 0, fmt.Errorf("asking for the time: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("asking for the time: %w", err)
	}
	response.Body.Close()
	date, err := http.ParseTime(response.Header.Get("Date")) // any status has a Date
	if err != nil {
		return 0, fmt.Errorf("asking %s for the time: %w", url, err)
	}
	if date.Before(from) || date.After(until) {
		return 0, fmt.Errorf("%s says that it is %s, which cannot be right either: the site CA is good from %s until %s",
			url, date.Format(time.RFC3339), from.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	moved := time.Until(date)
	value := unix.NsecToTimeval(date.UnixNano())
	if err := unix.Settimeofday(&value); err != nil {
		return 0, fmt.Errorf("setting the clock: %w", err)
	}
	return moved, nil
}

// bounds is the time in which a clock can be right.
func bounds(built time.Time, authority []byte) (from, until time.Time, err error) {
	block, _ := pem.Decode(authority)
	if block == nil {
		return from, until, errors.New("the site CA is not PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return from, until, fmt.Errorf("reading the site CA: %w", err)
	}
	from = certificate.NotBefore
	if built.After(from) {
		from = built
	}
	return from, certificate.NotAfter, nil
}
