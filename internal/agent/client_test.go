// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"metald.io/metald/api/v1alpha1"
)

func TestClient(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request)
		reason string // of a *RefusedError
		stale  bool
		final  bool
		text   string // of another error
	}{
		{"an order", func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Method != http.MethodPost || r.URL.Path != v1alpha1.NextPath || r.Header.Get("Authorization") != "Bearer secret" ||
				!strings.Contains(string(body), `"epoch":3`) {
				t.Errorf("the daemon got %s %s %v %s", r.Method, r.URL, r.Header, body)
			}
			io.WriteString(w, `{"hostUID":"uid-1","epoch":3,"step":"inspect","later":"a field of a newer daemon"}`)
		}, "", false, false, ""},
		{"old epoch", refuse(409, `{"reason":"OldEpoch","message":"m"}`), "OldEpoch", true, true, ""},
		{"no session", refuse(401, `{"reason":"NoSession","message":"m"}`), "NoSession", true, true, ""},
		{"not allowed", refuse(403, `{"reason":"TPMChanged","message":"m"}`), "TPMChanged", false, true, ""},
		{"busy", refuse(429, `{"reason":"Busy","message":"m"}`), "Busy", false, false, ""},
		{"trouble inside", refuse(500, `{"reason":"Internal","message":"m"}`), "Internal", false, false, ""},
		{"a proxy in between", refuse(502, `<html>bad gateway</html>`), "Unexpected", false, false, ""},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusTemporaryRedirect)
		},
			"Unexpected", false, false, ""},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, "", false, false, "decoding the answer"},
		{"without an end", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat(" ", 2*maxAnswer)+"{}") },
			"", false, false, "decoding the answer"},
	} {
		server := httptest.NewServer(http.HandlerFunc(test.answer))
		c := NewClient(server.URL+"/", server.Client().Transport)
		order, err := c.Next(t.Context(), "secret", v1alpha1.Message{HostUID: "uid-1", Epoch: 3})
		server.Close()
		var refused *RefusedError
		switch {
		case test.reason != "":
			if !errors.As(err, &refused) || refused.Reason != test.reason || stale(err) != test.stale || final(err) != test.final {
				t.Errorf("%s: got %v, stale %t, final %t", test.name, err, stale(err), final(err))
			}
		case test.text != "":
			if err == nil || !strings.Contains(err.Error(), test.text) || stale(err) || final(err) {
				t.Errorf("%s: got %v, want %q", test.name, err, test.text)
			}
		case err != nil || order.Step != v1alpha1.InspectStep:
			t.Errorf("%s: got %+v, %v", test.name, order, err)
		}
	}
}

func refuse(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}
