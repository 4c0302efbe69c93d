// SPDX-License-Identifier: Apache-2.0

package early

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// authority is a CA's certificate that is good from and until the given times.
func authority(t *testing.T, from, until time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Moving the clock needs root; what is tested here is when it is left alone, and which time is not believed.
func TestSetClockLeavesAGoodClockAndABadAnswer(t *testing.T) {
	now := time.Now()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Date", now.Add(-10*365*24*time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	for _, test := range []struct {
		name      string
		built     time.Time
		authority []byte
		asks      int
		want      string
	}{
		{"a clock that can be right", now.Add(-time.Hour), authority(t, now.Add(-time.Hour), now.Add(time.Hour)), 0, ""},
		{"before the program was built", now.Add(time.Hour), authority(t, now.Add(-time.Hour), now.Add(2*time.Hour)), 1, "cannot be right either"},
		{"before the CA was made", time.Time{}, authority(t, now.Add(time.Hour), now.Add(2*time.Hour)), 1, "cannot be right either"},
		{"after the CA ended", time.Time{}, authority(t, now.Add(-2*time.Hour), now.Add(-time.Hour)), 1, "cannot be right either"},
		{"no CA", time.Time{}, []byte("none"), 0, "not PEM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked = 0
			moved, err := SetClock(t.Context(), server.Client(), server.URL, test.built, test.authority)
			if asked != test.asks || moved != 0 {
				t.Errorf("asked %d times and moved by %s, want %d and 0", asked, moved, test.asks)
			}
			if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got error %v, want %q", err, test.want)
			}
		})
	}
}
