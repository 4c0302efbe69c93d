// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// BackupPath answers a copy of the whole inventory, beside the API and behind its authorization.
const BackupPath = "/metald/v1/backup"

// readerPatience is how long a reader may take for a part of a backup. While one is written, the file keeps the pages that the
// copy needs; nobody may hold them for ever.
const readerPatience = time.Minute

// ExtraPaths are what is served beside the API.
func ExtraPaths(store *inventory.Store, log *slog.Logger) map[string]http.Handler {
	paths := AuditPaths(store, log)
	paths[BackupPath] = Backups(store, log)
	return paths
}

// Backups serves a backup to whoever may get it.
func Backups(store *inventory.Store, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "a backup is only read", http.StatusMethodNotAllowed)
			return
		}
		start := time.Now()
		w.Header().Set("Content-Type", "application/octet-stream")
		n, err := store.Backup(r.Context(), patient{w, http.NewResponseController(w)})
		if errors.Is(err, inventory.ErrNoBackup) {
			refuseBackup(w, err)
			return
		}
		if err != nil {
			log.Warn("a backup was not finished", "bytes", n, "err", err)
			panic(http.ErrAbortHandler) // the reader must not take a part for the whole
		}
		log.Info("backup written", "bytes", n, "took", time.Since(start).Round(time.Millisecond))
	})
}

// refuseBackup says why in the form in which clients of the API look for it.
func refuseBackup(w http.ResponseWriter, why error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotImplemented)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // whoever does not read it has gone
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: http.StatusNotImplemented, Reason: metav1.StatusReasonMethodNotAllowed, Message: why.Error(),
	})
}

// patient gives the reader of each part its time anew.
type patient struct {
	io.Writer
	control *http.ResponseController
}

func (p patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(readerPatience)) // where there is no such thing, the connection's own limits hold
	return p.Writer.Write(b)
}

// Restore puts a backup in the place of a data directory's inventory, for the user who runs this program.
func Restore(ctx context.Context, dataDir string, backup io.Reader, reason string) (inventory.Restored, error) {
	who := audit.Actor{User: person(), Via: audit.ViaOffline}
	return inventory.Restore(inventory.WithReason(inventory.WithActor(ctx, who, ""), reason), dataDir, backup, time.Now())
}
