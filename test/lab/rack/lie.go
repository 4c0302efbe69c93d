// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"

	"metald.io/metald/internal/bmc/bmctest"
)

// liar is a Redfish BMC that says of its machine's power what stands in a file, for as long as the file is there.
type liar struct {
	*bmctest.BMC
	file string

	mu     sync.Mutex
	said   string
	remove func()
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.look()
	l.BMC.ServeHTTP(w, r)
}

// look takes up the lie that is told now.
func (l *liar) look() {
	text, _ := os.ReadFile(l.file) // no file is no lie
	l.mu.Lock()
	defer l.mu.Unlock()
	if string(text) == l.said {
		return
	}
	if l.remove != nil {
		l.remove()
		l.remove = nil
	}
	if l.said = string(text); l.said != "" {
		l.remove = l.Fault(bmctest.Rule{Path: system, PowerState: l.said})
	}
}

func (r *Rack) lieFile(name string) string { return r.Path("machines", name, "says-power") }

// Lie makes a Redfish BMC say On or Off whatever its machine is, and returns what brings it back to the truth.
func (r *Rack) Lie(name, power string) (restore func() error, err error) {
	spec, err := r.SpecOf(name)
	if err != nil {
		return nil, err
	}
	if spec.Protocol != Redfish {
		return nil, fmt.Errorf("making the BMC of %s lie: it speaks %s, and lying is only in the Redfish one", name, spec.Protocol)
	}
	if err := os.WriteFile(r.lieFile(name), []byte(power), 0o644); err != nil {
		return nil, fmt.Errorf("making the BMC of %s lie: %w", name, err)
	}
	return func() error {
		if err := os.Remove(r.lieFile(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("bringing the BMC of %s back to the truth: %w", name, err)
		}
		return nil
	}, nil
}
