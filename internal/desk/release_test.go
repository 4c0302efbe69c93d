// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory/audit"
)

// A session's token is a credential: that one is handed out is in the record, of which boot and by which proof, and the token
// is not. Where it cannot be recorded, none is handed out.
func TestSessionsAreRecorded(t *testing.T) {
	s := newSite(t)
	session := s.open(newTPM(t), v1alpha1.RamdiskMode)
	var found []string
	err := s.store.ReadRecord(t.Context(), time.Time{}, func(_ audit.Entry, r audit.Record) (bool, error) {
		if r.Act != nil {
			found = append(found, fmt.Sprintf("%s %s to %s at %s in epoch %d: %s", r.Act.Phase, r.Act.Verb, r.Host, r.Act.Target, r.Act.Epoch, r.Act.Detail))
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, want := strings.Join(found, "\n"), "done release agent session to default/r1n01 at 172.22.0.9 in epoch 3: ramdisk, boot "+bootID+", proof by tpm"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if strings.Contains(got, session.Token) {
		t.Error("the token is in the record")
	}

	tpm := newTPM(t)
	challenge, status, reason := post[v1alpha1.Challenge](s, v1alpha1.HelloPath, "", hello(tpm, v1alpha1.RamdiskMode))
	if status != http.StatusOK {
		t.Fatalf("hello: %d %s", status, reason)
	}
	secret, err := tpm.Activate(challenge)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	out, status, _ := post[v1alpha1.Session](s, v1alpha1.ProvePath, "", v1alpha1.Proof{ChallengeID: challenge.ID, Secret: secret})
	if status == http.StatusOK || out.Token != "" {
		t.Errorf("without a record: got status %d and a token of %d letters, want neither", status, len(out.Token))
	}
}
