// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options are what differs from BMC to BMC. Username and Password have no default: a BMC without them lets nobody in.
type Options struct {
	Username string
	Password string
	// UUID is the service's UUID (ServiceRoot.UUID); empty means the machine's.
	UUID string
	// Vendor and Product are the service root's; empty means the machine's manufacturer and "Baseboard Management Controller".
	Vendor  string
	Product string
	// FirmwareVersion is the BMC's own; empty means "1.0.0".
	FirmwareVersion string
	// MaxSessions is the size of the session table; 0 means 4, a size that is met in the field.
	MaxSessions int
	// SessionTimeout is after how long without a request a session ends; 0 means 30 minutes.
	SessionTimeout time.Duration
	// IfMatch is what PATCH makes of the If-Match header: vendors differ, and clients must cope with each.
	IfMatch IfMatch
	// BootTargets are what BootSourceOverrideTarget may be; nil means None, Pxe, Hdd and UefiHttp. Many BMCs know no UefiHttp.
	BootTargets []string
	// UnlistedBootTargets leaves the list of allowable boot targets out of the system, as old firmware does.
	UnlistedBootTargets bool
	// Logger gets one debug line a request; nil means none.
	Logger *slog.Logger
	// Now is the clock of the session table; nil means time.Now.
	Now func() time.Time
}

// IfMatch says how a BMC treats the header If-Match of a PATCH.
type IfMatch int

const (
	// IfMatchOptional checks the header where it is sent, as the specification has it.
	IfMatchOptional IfMatch = iota
	// IfMatchRequired answers 428 where it is missing, as AMI's firmware does.
	IfMatchRequired
	// IfMatchRefused answers 412 where it is sent, as some iDRAC 10 firmware does.
	IfMatchRefused
)

// Request is one request that the BMC has met, as its log keeps it.
type Request struct {
	Method string
	Path   string
	// Credentials is what came with it: "", "basic", "token" or "login" (a session's POST).
	Credentials string
	// Status is what was answered; 0 means that no answer was given (yet).
	Status int
}

// BMC is a Redfish service as an http.Handler. Serve it with TLS: see Server.
type BMC struct {
	machine Machine
	options Options
	mux     *http.ServeMux
	table   *sessionTable
	faults  faults

	bootMu sync.Mutex // one boot setting or reset at a time
	mode   string     // BootSourceOverrideMode
	inert  string     // a target that was written while the override is disabled

	logMu sync.Mutex
	log   []*Request
}

// maxLog bounds the request log; older requests are dropped.
const maxLog = 4096

// New returns a BMC that switches m.
func New(m Machine, o Options) *BMC {
	d := m.Description()
	if o.UUID == "" {
		o.UUID = d.UUID
	}
	if o.Vendor == "" {
		o.Vendor = d.Manufacturer
	}
	if o.Product == "" {
		o.Product = "Baseboard Management Controller"
	}
	if o.FirmwareVersion == "" {
		o.FirmwareVersion = "1.0.0"
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = 4
	}
	if o.BootTargets == nil {
		o.BootTargets = bootTargets
	}
	if o.SessionTimeout == 0 {
		o.SessionTimeout = 30 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	b := &BMC{
		machine: m,
		options: o,
		mux:     http.NewServeMux(),
		table:   newSessionTable(o.MaxSessions, o.SessionTimeout, o.Now),
		mode:    "UEFI",
		inert:   "None",
	}
	b.routes()
	return b
}

// Requests returns the requests met so far, the oldest first.
func (b *BMC) Requests() []Request {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	list := make([]Request, 0, len(b.log))
	for _, r := range b.log {
		list = append(list, *r)
	}
	return list
}

// note logs a request when it arrives: one that hangs has been sent, too. The result sets its status.
func (b *BMC) note(r *http.Request) (done func(status int)) {
	entry := &Request{Method: r.Method, Path: r.URL.Path, Credentials: kindOf(r)}
	b.logMu.Lock()
	defer b.logMu.Unlock()
	if len(b.log) == maxLog {
		b.log = b.log[1:]
	}
	b.log = append(b.log, entry)
	return func(status int) {
		b.logMu.Lock()
		defer b.logMu.Unlock()
		entry.Status = status
	}
}

// ServeHTTP answers one request: faults first, then the door, then the resource.
func (b *BMC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	// One trailing slash more or less is the same resource, as the specification asks of /redfish/v1.
	if p := strings.TrimRight(r.URL.Path, "/"); p != "" {
		r.URL.Path = p
	}
	done := b.note(r)
	defer func() {
		done(rec.status)
		b.options.Logger.Debug("redfish request", "method", r.Method, "path", r.URL.Path, "status", rec.status)
	}()
	r.Body = http.MaxBytesReader(rec, r.Body, 64<<10)
	rec.Header().Set("OData-Version", "4.0")
	if b.faults.answered(rec, r) {
		return
	}
	if !public(r) && !b.admitted(r) {
		rec.Header().Set("WWW-Authenticate", `Basic realm="Redfish"`)
		fail(rec, http.StatusUnauthorized, "NoValidSession", "There is no valid session established with the implementation.")
		return
	}
	b.mux.ServeHTTP(rec, r)
}

// public says which requests need no credentials: the service root and its kin, and logging in.
func public(r *http.Request) bool {
	switch r.URL.Path {
	case "/redfish", "/redfish/v1", "/redfish/v1/odata", "/redfish/v1/$metadata":
		return r.Method == http.MethodGet || r.Method == http.MethodHead
	}
	return login(r)
}

func login(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Path == pathSessions
}

func kindOf(r *http.Request) string {
	switch {
	case login(r):
		return "login"
	case r.Header.Get("X-Auth-Token") != "":
		return "token"
	case r.Header.Get("Authorization") != "":
		return "basic"
	}
	return ""
}

// admitted checks the session token or the basic credentials of a request.
func (b *BMC) admitted(r *http.Request) bool {
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		return b.table.valid(token)
	}
	user, password, ok := r.BasicAuth()
	return ok && b.known(user, password)
}

func (b *BMC) known(user, password string) bool {
	if b.options.Username == "" || b.options.Password == "" {
		return false
	}
	return same(user, b.options.Username) && same(password, b.options.Password)
}

// same compares without telling by its time how much was right.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
