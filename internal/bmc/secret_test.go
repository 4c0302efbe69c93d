// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	const password = "hunter2"
	target := Target{Username: "root", Password: password}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "target", target, "password", target.Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "target", target, "password", target.Password)
	text := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		text += fmt.Sprintf(verb+verb, target, target.Password)
	}
	data, err := json.Marshal([]any{target, target.Password, []Secret{password}})
	if err != nil {
		t.Fatal(err)
	}
	text += string(data)
	for _, shown := range []string{password, fmt.Sprintf("%x", password), fmt.Sprintf("%X", password)} {
		if strings.Contains(text, shown) {
			t.Errorf("%q is shown in %s", shown, text)
		}
	}
	if got := target.Password.Reveal(); got != password {
		t.Errorf("Reveal() = %q", got)
	}
}
