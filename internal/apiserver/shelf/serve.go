// SPDX-License-Identifier: Apache-2.0

package shelf

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
)

// answer is what a store has for a request, beside what the handlers see.
type answer struct {
	object *Object
	items  []Object
	isList bool
}

func (a *answer) take(o *Object)           { a.object = o }
func (a *answer) takeAll(objects []Object) { a.items, a.isList = objects, true }
func (a *answer) taken() bool              { return a.object != nil || a.isList }

type answerKey struct{}

func answerOf(ctx context.Context) *answer {
	a, _ := ctx.Value(answerKey{}).(*answer)
	return a
}

// Serve goes around the handlers of custom resources.
func Serve(next http.Handler) http.Handler {
	register()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !plain(r) {
			next.ServeHTTP(w, r)
			return
		}
		a := &answer{}
		held := &writer{ResponseWriter: w, answer: a}
		next.ServeHTTP(responsewriter.WrapForHTTP1Or2(held), r.WithContext(context.WithValue(r.Context(), answerKey{}, a)))
		held.finish(acceptsGzip(r))
	})
}

// plain answers whether r asks for objects as they are, as JSON without spaces. Where the API library might write anything
// else, it does.
func plain(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	if r.Method != http.MethodGet || !ok || !info.IsResourceRequest || info.Subresource != "" || info.Verb != "get" && info.Verb != "list" {
		return false
	}
	if r.URL.Query().Has("pretty") {
		return false
	}
	for _, spaced := range []string{"curl", "Wget", "Mozilla/5.0"} { // people behind these read with their own eyes
		if strings.HasPrefix(r.UserAgent(), spaced) {
			return false
		}
	}
	for _, line := range r.Header.Values("Accept") {
		for media := range strings.SplitSeq(line, ",") {
			if media = strings.TrimSpace(media); media != "application/json" && media != "*/*" {
				return false
			}
		}
	}
	event := audit.AuditContextFrom(r.Context())
	return event == nil || event.GetEventLevel().Less(auditinternal.LevelRequestResponse)
}

func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(line, ",") {
			if name, _, _ := strings.Cut(coding, ";"); strings.TrimSpace(name) == "gzip" {
				return true
			}
		}
	}
	return false
}

// writer keeps back the handlers' answer where the store has a better one.
type writer struct {
	http.ResponseWriter
	answer *answer
	held   bool
	body   bytes.Buffer
}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(code int) {
	if code == http.StatusOK && w.answer.taken() {
		w.held = true
		return
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	if w.held {
		return w.body.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

const (
	// gzipFrom is the size from which the API library compresses an answer.
	gzipFrom = 128 << 10
	// chunk is what is written at once: a small write costs HTTP/2 as much as a big one.
	chunk = 256 << 10
)

// zippers are *gzip.Writer; one is most of a megabyte.
var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // errs only for a level that there is not
	return z
}}

// emptyItems is where the objects of a list go in the handlers' answer.
var emptyItems = []byte(`"items":[]`)

// finish writes what was held back.
func (w *writer) finish(zip bool) {
	if !w.held {
		return
	}
	size := w.body.Len()
	if w.answer.object != nil {
		size = w.answer.object.size()
		kept.WithLabelValues("get").Inc()
	} else {
		kept.WithLabelValues("list").Add(float64(len(w.answer.items)))
	}
	for i := range w.answer.items {
		size += w.answer.items[i].size()
	}
	if zip = zip && size > gzipFrom; zip {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Add("Vary", "Accept-Encoding")
	}
	w.ResponseWriter.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(w.ResponseWriter, min(size+1, chunk))
	var err error
	if zip {
		z := zippers.Get().(*gzip.Writer)
		z.Reset(out)
		err = errors.Join(w.content(z), z.Close())
		z.Reset(io.Discard)
		zippers.Put(z)
	} else {
		err = w.content(out)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client is away, or must not take half an answer for a whole one
	}
}

func (w *writer) content(out io.Writer) error {
	if w.answer.object != nil {
		if err := w.answer.object.write(out); err != nil {
			return err
		}
		_, err := out.Write([]byte{'\n'})
		return err
	}
	body := w.body.Bytes()
	place := bytes.Index(body, emptyItems)
	if place < 0 {
		return errors.New("the handlers' list has no empty items")
	}
	place += len(emptyItems) - 1
	if _, err := out.Write(body[:place]); err != nil {
		return err
	}
	for i := range w.answer.items {
		if i > 0 {
			if _, err := out.Write([]byte{','}); err != nil {
				return err
			}
		}
		if err := w.answer.items[i].write(out); err != nil {
			return err
		}
	}
	_, err := out.Write(body[place:])
	return err
}
