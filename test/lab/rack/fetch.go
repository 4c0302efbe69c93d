// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Fetch makes one HTTP request from where this process stands, prints the answer's body, and fails where the status is not
// 2xx. It stands in for curl, which Debian's base does not have; it does not verify certificates. Method, body and
// credentials come from the environment, so that they show in no process list.
func Fetch(ctx context.Context, url string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	method := os.Getenv("LAB_METHOD")
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(os.Getenv("LAB_BODY")))
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	if user := os.Getenv("LAB_USER"); user != "" {
		request.SetBasicAuth(user, os.Getenv("LAB_PASSWORD"))
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(out, answer.Body); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	return nil
}
