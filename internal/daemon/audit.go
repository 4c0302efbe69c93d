// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// Where the record is served, beside the API and behind its authorization: give auditors a role with the verb get on these
// nonResourceURLs.
const (
	// AuditExportPath answers the whole record as audit.Verify reads it.
	AuditExportPath = "/audit/v1/export"
	// AuditRecordsPath answers lines of single entries: those of a host (host=namespace/name) and a time on (since=, RFC 3339),
	// the newest (last=) of them.
	AuditRecordsPath = "/audit/v1/records"
)

// AuditPaths serve the record, to be read.
func AuditPaths(store *inventory.Store, log *slog.Logger) map[string]http.Handler {
	serve := func(answer func(http.ResponseWriter, *http.Request) error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				http.Error(w, "the record is only read", http.StatusMethodNotAllowed)
				return
			}
			w.Header().Set("Content-Type", "application/jsonl")
			if err := answer(w, r); err != nil && r.Context().Err() == nil {
				log.Error("serving the record", "err", err)
				panic(http.ErrAbortHandler) // the reader must not take a part for the whole
			}
		})
	}
	return map[string]http.Handler{
		AuditExportPath:  serve(func(w http.ResponseWriter, r *http.Request) error { return store.ExportRecord(r.Context(), w) }),
		AuditRecordsPath: serve(func(w http.ResponseWriter, r *http.Request) error { return answerRecords(store, w, r) }),
	}
}

// maxRecords is how many entries one answer has at most.
const maxRecords = 10000

func answerRecords(store *inventory.Store, w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	host, last, since := query.Get("host"), maxRecords, time.Time{}
	var err error
	if text := query.Get("last"); text != "" {
		last, err = strconv.Atoi(text)
		if err == nil && (last < 1 || last > maxRecords) {
			err = fmt.Errorf("it is not between 1 and %d", maxRecords)
		}
	}
	if text := query.Get("since"); text != "" && err == nil {
		since, err = time.Parse(time.RFC3339, text)
	}
	if err != nil {
		http.Error(w, "reading the request: "+err.Error(), http.StatusBadRequest)
		return nil
	}
	var lines [][]byte
	err = store.ReadRecord(r.Context(), since, func(e audit.Entry, record audit.Record) (bool, error) {
		if host != "" && record.Host != host {
			return true, nil
		}
		if lines = append(lines, e.Line()); len(lines) >= 2*last {
			lines = append(lines[:0:0], lines[len(lines)-last:]...)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, line := range lines[max(0, len(lines)-last):] {
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// apiLog is the API's own log of requests: a file that is put aside when it is full, the oldest of which goes.
type apiLog struct {
	path string
	most int64 // bytes a file
	keep int   // files put aside

	mu   sync.Mutex
	file *os.File
	size int64
}

const (
	apiLogBytes = 64 << 20
	apiLogFiles = 9
)

// Write appends one line, and moves on to a new file where it would not fit into this one.
func (l *apiLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && l.size > 0 && l.size+int64(len(line)) > l.most {
		if err := l.putAside(); err != nil {
			return 0, fmt.Errorf("putting the API's log aside: %w", err)
		}
	}
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return 0, fmt.Errorf("opening the API's log: %w", err)
		}
		info, err := f.Stat()
		if err != nil {
			return 0, errors.Join(err, f.Close())
		}
		l.file, l.size = f, info.Size()
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return n, err
}

// putAside renames api.log to api.log.1, that to api.log.2 and so on; the last one goes.
func (l *apiLog) putAside() error {
	err := l.file.Close()
	l.file = nil
	name := func(n int) string { return fmt.Sprintf("%s.%d", l.path, n) }
	for n := l.keep - 1; n > 0; n-- {
		if failed := os.Rename(name(n), name(n+1)); !errors.Is(failed, fs.ErrNotExist) {
			err = cmp.Or(err, failed)
		}
	}
	return cmp.Or(err, os.Rename(l.path, name(1)))
}

// Close ends the file; the next Write opens it again.
func (l *apiLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
