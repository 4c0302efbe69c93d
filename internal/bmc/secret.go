// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a password. It prints as REDACTED with fmt, JSON, text encodings and slog; Reveal is the one way to it.
type Secret string

const redacted = "REDACTED"

// Reveal returns the password itself.
func (s Secret) Reveal() string { return string(s) }

// String returns REDACTED, for an empty password too: that it is empty is also a secret.
func (Secret) String() string { return redacted }

// Format covers every verb of fmt; %x and %q would go past String otherwise.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON returns "REDACTED".
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText returns REDACTED.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns REDACTED.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
