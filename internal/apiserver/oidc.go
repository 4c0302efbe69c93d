// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	api "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// Document is a file that belongs to the configuration and may change while the server runs.
type Document struct {
	// Name is how errors and logs call it: the file's name.
	Name string
	// Read reads it.
	Read func() ([]byte, error)
	// Every is how often it is read again, to look for changes; 0 is every five seconds.
	Every time.Duration
}

// Check reads it once and says what is wrong with it, as New would.
func (d Document) Check() error {
	if d.Read == nil {
		return nil
	}
	text, err := d.Read()
	if err == nil {
		_, err = parseAuthentication(d.Name, text, authenticationcel.NewDefaultCompiler())
	}
	return err
}

// tokens lets in whoever has a token of an OpenID Connect issuer that the AuthenticationConfiguration trusts. The library's
// authenticator checks signature, issuer, audience and time, and asks the issuer for its keys; an issuer that is away refuses
// its own tokens until it is back, and nothing else.
type tokens struct {
	document Document
	compiler authenticationcel.Compiler
	logger   *slog.Logger

	text   []byte // what was last read, good or not
	config *api.AuthenticationConfiguration
	now    atomic.Pointer[[]*issuer] // replaced as a whole
}

// issuer is one that is trusted.
type issuer struct {
	config api.JWTAuthenticator
	oidc.AuthenticatorTokenWithHealthCheck
	stop context.CancelFunc
	told string // what the log was told last
}

var _ authenticator.Token = (*tokens)(nil)

// newTokens reads whom to trust; nobody is asked before follow. Without a document it is nil.
func newTokens(document Document, logger *slog.Logger) (*tokens, error) {
	if document.Read == nil {
		return nil, nil
	}
	t := &tokens{document: document, compiler: authenticationcel.NewDefaultCompiler(), logger: logger}
	if t.logger == nil {
		t.logger = slog.New(slog.DiscardHandler)
	}
	t.document.Every = cmp.Or(t.document.Every, 5*time.Second)
	t.now.Store(&[]*issuer{})
	if _, err := t.read(); err != nil {
		return nil, fmt.Errorf("reading whose tokens to trust: %w", err)
	}
	return t, nil
}

// read reads the document and says whether it has changed. One that is broken leaves the configuration as it was.
func (t *tokens) read() (changed bool, err error) {
	text, err := t.document.Read()
	if err != nil {
		return false, err
	}
	if t.text != nil && bytes.Equal(text, t.text) {
		return false, nil
	}
	t.text = text
	config, err := parseAuthentication(t.document.Name, text, t.compiler)
	if err != nil {
		return false, err
	}
	t.config = config
	return true, nil
}

// AuthenticateToken implements authenticator.Token.
func (t *tokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	var refusals []error
	for _, issuer := range *t.now.Load() {
		response, ok, err := issuer.AuthenticateToken(ctx, token)
		if ok && err == nil {
			err = issuer.mayName(response.User)
		}
		if ok && err == nil {
			return response, true, nil
		}
		if err != nil {
			refusals = append(refusals, err)
		}
	}
	return nil, false, errors.Join(refusals...)
}

// mayName refuses names that have a meaning of their own, whatever mapping or expression has made them, and a user whose
// claim was empty.
func (i *issuer) mayName(who user.Info) error {
	if prefix := i.config.ClaimMappings.Username.Prefix; who.GetName() == "" || (prefix != nil && who.GetName() == *prefix) {
		return errors.New("the token names no user")
	}
	for _, name := range append([]string{who.GetName()}, who.GetGroups()...) {
		for _, reserved := range reservedNames {
			if strings.HasPrefix(name, reserved) {
				return fmt.Errorf("the token makes %q: names that begin with %s come from no issuer", name, reserved)
			}
		}
		if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("the token makes %q: it has letters that cannot be printed", name)
		}
	}
	return nil
}

// follow asks the issuers for their keys, and reads the document again for changes, until ctx ends.
func (t *tokens) follow(ctx context.Context) {
	t.apply(ctx)
	ticker := time.NewTicker(t.document.Every)
	defer ticker.Stop()
	var told string
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := t.read()
		switch {
		case err != nil && err.Error() != told:
			told = err.Error()
			t.logger.Error("reading whose tokens to trust: those that were trusted before still are", "err", err)
		case changed:
			told = ""
			t.logger.Info("whose tokens to trust has changed", "issuers", len(t.config.JWT))
			t.apply(ctx)
		}
		t.tell()
	}
}

// apply trusts whom the configuration names, from now on, and nobody else. An issuer about which nothing has changed goes on.
func (t *tokens) apply(ctx context.Context) {
	before := *t.now.Load()
	var after []*issuer
	kept := map[*issuer]bool{}
	for _, config := range t.config.JWT {
		next := find(before, config)
		if next == nil {
			made, err := t.trust(ctx, config)
			if err != nil {
				t.logger.Error("an issuer cannot be asked, its tokens are refused", "issuer", config.Issuer.URL, "err", err)
				continue
			}
			next = made
		}
		kept[next] = true
		after = append(after, next)
	}
	t.now.Store(&after)
	for _, old := range before {
		if !kept[old] {
			old.stop()
		}
	}
}

func find(all []*issuer, config api.JWTAuthenticator) *issuer {
	for _, one := range all {
		if reflect.DeepEqual(one.config, config) {
			return one
		}
	}
	return nil
}

// trust begins to ask an issuer for its keys, and asks on until it answers.
func (t *tokens) trust(ctx context.Context, config api.JWTAuthenticator) (*issuer, error) {
	options := oidc.Options{JWTAuthenticator: config, Compiler: t.compiler, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(), APIServerID: "metald"}
	if authority := config.Issuer.CertificateAuthority; authority != "" {
		content, err := dynamiccertificates.NewStaticCAContent("issuer", []byte(authority))
		if err != nil {
			return nil, err
		}
		options.CAContentProvider = content
	}
	ctx, stop := context.WithCancel(ctx)
	asked, err := oidc.New(ctx, options)
	if err != nil {
		stop()
		return nil, err
	}
	return &issuer{config: config, AuthenticatorTokenWithHealthCheck: asked, stop: stop}, nil
}

// tell tells the log which issuers are away, and which are back, once each.
func (t *tokens) tell() {
	for _, issuer := range *t.now.Load() {
		state, err := "answers", issuer.HealthCheck()
		if err != nil {
			state = "away"
		}
		if issuer.told == state {
			continue
		}
		issuer.told = state
		if err != nil {
			t.logger.Error("an issuer of tokens is away, its tokens are refused until it answers", "issuer", issuer.config.Issuer.URL, "err", err)
			continue
		}
		t.logger.Info("tokens of an issuer are accepted", "issuer", issuer.config.Issuer.URL)
	}
}
