// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// explain has the client of a kubeconfig say why the API does not let it in, or why it does not trust the API. The API itself
// tells a stranger nothing, but whoever holds the kubeconfig can see what is wrong with it.
func explain(config *rest.Config) {
	login := *config // as it is now: the certificate, the token
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return explainer{next, &login} })
}

type explainer struct {
	next  http.RoundTripper
	login *rest.Config
}

// RoundTrip implements http.RoundTripper.
func (e explainer) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := e.next.RoundTrip(r)
	if err != nil {
		return nil, explainTrust(err)
	}
	if response.StatusCode != http.StatusUnauthorized {
		return response, nil
	}
	_ = response.Body.Close()
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Code: http.StatusUnauthorized, Reason: metav1.StatusReasonUnauthorized, Message: whyUnauthorized(e.login, time.Now()),
	})
	if err != nil {
		return nil, err
	}
	response.Header.Set("Content-Type", "application/json")
	response.Header.Set("Content-Length", strconv.Itoa(len(body)))
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return response, nil
}

// explainTrust says what to do where the server is not who the kubeconfig says.
func explainTrust(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: the kubeconfig is of another daemon, or its site CA was replaced since: get a new one with metald kubeconfig", err)
	case errors.As(err, &name):
		return fmt.Errorf("%w: the daemon knows itself by other names: see api.names of its configuration", err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: is the clock right, here and there? The daemon renews its certificate when it starts", err)
	}
	return err
}

// whyUnauthorized says what can be seen from this side.
func whyUnauthorized(login *rest.Config, now time.Time) string {
	const ask = "ask for a new one, which root beside the daemon makes with metald kubeconfig --user"
	certificate, err := leafOf(login)
	switch {
	case err == nil && certificate != nil && now.After(certificate.NotAfter):
		return fmt.Sprintf("the login of %s ended at %s: %s", certificate.Subject.CommonName, certificate.NotAfter.Format(time.RFC3339), ask)
	case err == nil && certificate != nil && now.Before(certificate.NotBefore):
		return fmt.Sprintf("the login of %s begins at %s: is the clock right?", certificate.Subject.CommonName, certificate.NotBefore.Format(time.RFC3339))
	case err == nil && certificate != nil:
		return fmt.Sprintf("the API does not know the login of %s: it is of another daemon, or the client CA was replaced since: %s", certificate.Subject.CommonName, ask)
	case login.BearerToken != "" || login.BearerTokenFile != "" || login.ExecProvider != nil || login.AuthProvider != nil:
		return "the API does not accept the token: it has ended, or its issuer is not trusted, or is away"
	}
	return "the API lets nobody in without a login: " + ask
}

// leafOf is the client certificate of a kubeconfig; nil if it has none.
func leafOf(login *rest.Config) (*x509.Certificate, error) {
	var pair tls.Certificate
	var err error
	switch {
	case len(login.CertData) > 0:
		pair, err = tls.X509KeyPair(login.CertData, login.KeyData)
	case login.CertFile != "":
		pair, err = tls.LoadX509KeyPair(login.CertFile, login.KeyFile)
	}
	if err != nil || len(pair.Certificate) == 0 {
		return nil, err
	}
	return x509.ParseCertificate(pair.Certificate[0])
}
