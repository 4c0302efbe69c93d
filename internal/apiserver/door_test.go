// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"metald.io/metald/internal/apiserver"
	"metald.io/metald/internal/inventory"
)

var (
	hosts       = schema.GroupVersionResource{Group: "metal3.io", Version: "v1alpha1", Resource: "baremetalhosts"}
	images      = schema.GroupVersionResource{Group: "metald.io", Version: "v1alpha1", Resource: "images"}
	secrets     = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	namespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	events      = schema.GroupVersionResource{Version: "v1", Resource: "events"}
	leases      = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

// authority signs certificates for one test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t), cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue returns a certificate and its key in PEM.
func (a *authority) issue(t *testing.T, name string, usage x509.ExtKeyUsage, groups ...string) (certificate, key []byte) {
	t.Helper()
	private := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// door is a running server over an inventory of its own.
type door struct {
	server    *apiserver.Server
	store     *inventory.Store
	authority *authority
	address   string
	stop      func() error
}

// storeOptions say where the inventory of a data directory is kept: in a file there, unless the suite runs on etcd
// (etcd_long_test.go).
var storeOptions = func(string) inventory.Options { return inventory.Options{NoSync: true} }

// The door that tests share: a start takes a second. A test that ends its server, or changes definitions, opens its own.
var shared struct {
	once  sync.Once
	door  *door
	close func()
	uses  atomic.Int64 // a namespace a use, so that a test may run more than once
}

// sharedDoor returns the shared door and a new namespace for the test.
func sharedDoor(t *testing.T) (*door, string) {
	t.Helper()
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "metald-apiserver")
		if err != nil {
			t.Fatal(err)
		}
		store, err := inventory.Open(dir, storeOptions(dir))
		if err != nil {
			t.Fatal(err)
		}
		shared.door = start(t, store)
		shared.close = func() {
			if err := shared.door.stop(); err != nil {
				fmt.Fprintln(os.Stderr, "ending the shared server:", err)
			}
			store.Close()
			os.RemoveAll(dir)
		}
	})
	if shared.door == nil {
		t.Fatal("the shared server did not start")
	}
	name := fmt.Sprintf("%s-%d", strings.ToLower(t.Name()), shared.uses.Add(1))
	_, err := shared.door.admin(t).Resource(namespaces).Create(t.Context(),
		object(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+"}}"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return shared.door, name
}

// open starts a server over a fresh inventory and ends it with the test.
func open(t *testing.T) *door {
	t.Helper()
	dir := t.TempDir()
	store, err := inventory.Open(dir, storeOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d := start(t, store)
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("ending the server: %v", err)
		}
	})
	return d
}

// start starts a server and waits until it is ready.
func start(t *testing.T, store *inventory.Store, more ...func(*apiserver.Config)) *door {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{store: store, authority: newAuthority(t), address: listener.Addr().String()}
	certificate, key := d.authority.issue(t, "metald", x509.ExtKeyUsageServerAuth)
	config := apiserver.Config{
		Etcd: store.Etcd(), Transformer: store.Transformer, Listener: listener, Certificate: certificate, Key: key, ClientCA: d.authority.pem(),
	}
	for _, set := range more {
		set(&config)
	}
	d.server, err = apiserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.server.Run(ctx) }()
	d.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("it did not end within 20 s")
		}
	})
	select {
	case <-d.server.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("the server ended before it was ready: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("the server was not ready within 60 s")
	}
	return d
}

// client is how a user with a certificate of this door's authority comes in.
func (d *door) client(t *testing.T, name string, groups ...string) *rest.Config {
	config := d.stranger()
	config.CertData, config.KeyData = d.authority.issue(t, name, x509.ExtKeyUsageClientAuth, groups...)
	return config
}

// stranger knows the server's authority and has no certificate.
func (d *door) stranger() *rest.Config {
	return &rest.Config{
		Host: "https://" + d.address, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: d.authority.pem()},
	}
}

// admin is a client that may do everything.
func (d *door) admin(t *testing.T) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(d.client(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// object reads YAML.
func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

// hostNamed is a wish that the schema accepts.
func hostNamed(t *testing.T, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	return object(t, `
apiVersion: metal3.io/v1alpha1
kind: BareMetalHost
metadata: {namespace: `+namespace+`, name: `+name+`}
spec:
  online: true
  bmc: {address: "redfish://192.0.2.1", credentialsName: bmc}
  bootMACAddress: "52:54:00:00:00:01"
`)
}
