// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/rest"
)

// Who comes through the local socket has a name of its own in the record, unless they ask to be taken for somebody else.
func TestLocalSocketHasAName(t *testing.T) {
	var seen http.Header
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header }))
	defer api.Close()
	proxy := adminProxy(&rest.Config{Host: api.URL, BearerToken: "t"})
	for _, test := range []struct {
		as, user, group string
	}{{"", localRoot, "system:masters"}, {"ops1", "ops1", ""}} {
		r := httptest.NewRequest("GET", "/api", nil)
		if test.as != "" {
			r.Header.Set("Impersonate-User", test.as)
		}
		proxy.ServeHTTP(httptest.NewRecorder(), r)
		if got := seen.Get("Impersonate-User"); got != test.user || seen.Get("Impersonate-Group") != test.group || seen.Get("Authorization") != "Bearer t" {
			t.Errorf("as %q: the API hears %v", test.as, seen)
		}
	}
}
