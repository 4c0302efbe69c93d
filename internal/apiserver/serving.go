// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/google/uuid"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/rest"
)

// secure fills in who is served on the listener and how: TLS with the given certificate, client certificates of the
// given authorities, and a second certificate and a token for the server's own clients. Nobody is anonymous.
func secure(into *genericapiserver.Config, config Config) error {
	if config.Listener == nil {
		return fmt.Errorf("opening the API: no listener was given")
	}
	serving, err := dynamiccertificates.NewStaticCertKeyContent("serving", config.Certificate, config.Key)
	if err != nil {
		return fmt.Errorf("reading the API's serving certificate: %w", err)
	}
	clients, err := dynamiccertificates.NewStaticCAContent("clients", config.ClientCA)
	if err != nil {
		return fmt.Errorf("reading the API's client authorities: %w", err)
	}
	loopbackCertificate, loopbackKey, err := selfSigned(genericapiserver.LoopbackClientServerNameOverride)
	if err != nil {
		return fmt.Errorf("making the loopback certificate: %w", err)
	}
	loopback, err := dynamiccertificates.NewStaticSNICertKeyContent("loopback", loopbackCertificate, loopbackKey,
		genericapiserver.LoopbackClientServerNameOverride)
	if err != nil {
		return fmt.Errorf("reading the loopback certificate: %w", err)
	}
	into.SecureServing = &genericapiserver.SecureServingInfo{
		Listener:      config.Listener,
		Cert:          serving,
		SNICerts:      []dynamiccertificates.SNICertKeyContentProvider{loopback},
		ClientCA:      clients,
		MinTLSVersion: tls.VersionTLS12,
	}
	into.LoopbackClientConfig, err = loopbackClient(config.Listener.Addr(), loopbackCertificate)
	if err != nil {
		return err
	}
	into.ExternalAddress = config.Listener.Addr().String()
	var known authenticator.Request = x509request.NewDynamic(clients.VerifyOptions, x509request.CommonNameUserConversion)
	if config.tokens != nil {
		known = union.New(known, bearertoken.New(config.tokens))
	}
	into.Authentication.Authenticator = group.NewAuthenticatedGroupAdder(known)
	return nil
}

// loopbackClient is how the process reaches its own API.
func loopbackClient(address net.Addr, authority []byte) (*rest.Config, error) {
	host, port, err := genericapiserver.LoopbackHostPort(address.String())
	if err != nil {
		return nil, fmt.Errorf("reading the listener's address: %w", err)
	}
	return &rest.Config{
		Host:        "https://" + net.JoinHostPort(host, port),
		BearerToken: uuid.NewString(),
		QPS:         -1, // the process does not limit itself
		TLSClientConfig: rest.TLSClientConfig{
			CAData:     authority,
			ServerName: genericapiserver.LoopbackClientServerNameOverride,
		},
	}, nil
}

// selfSigned makes a certificate that lives in this process only; it outlasts any run.
func selfSigned(name string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		NotBefore:             now.Add(-24 * time.Hour), // clocks step back
		NotAfter:              now.AddDate(50, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	var cert, secret bytes.Buffer
	if err := pem.Encode(&cert, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		return nil, nil, err
	}
	if err := pem.Encode(&secret, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}); err != nil {
		return nil, nil, err
	}
	return cert.Bytes(), secret.Bytes(), nil
}
