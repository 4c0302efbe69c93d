// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"metald.io/metald/api/v1alpha1"
)

const (
	adminKubeconfig = "admin.kubeconfig"
	socketName      = "metald.sock"
	// fieldManager owns what these commands write into a spec.
	fieldManager = "metald-cli"
)

// access is what the flags say about how to reach the API.
type access struct {
	kubeconfig, dataDir, namespace string
}

// door is the API, reached.
type door struct {
	metal3, metald, core *rest.RESTClient
	// namespace is what -n, the kubeconfig or the default says.
	namespace string
}

var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(metal3.AddToScheme(s))
	utilruntime.Must(v1alpha1.AddToScheme(s))
	utilruntime.Must(corev1.AddToScheme(s))
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}()

func (a *access) open() (*door, error) {
	config, namespace, err := a.config()
	if err != nil {
		return nil, err
	}
	if a.namespace != "" {
		namespace = a.namespace
	}
	if namespace == "" {
		namespace = "default"
	}
	// The server guards itself with priority and fairness; a second, slower guard here makes large imports crawl.
	config.QPS = -1
	config.UserAgent = "metald/" + programVersion()
	explain(config)
	d := &door{namespace: namespace}
	for _, c := range []struct {
		into *(*rest.RESTClient)
		gv   schema.GroupVersion
		path string
	}{{&d.metal3, metal3.GroupVersion, "/apis"}, {&d.metald, v1alpha1.GroupVersion, "/apis"}, {&d.core, corev1.SchemeGroupVersion, "/api"}} {
		of := rest.CopyConfig(config)
		of.GroupVersion, of.APIPath = &c.gv, c.path
		of.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
		if *c.into, err = rest.RESTClientFor(of); err != nil {
			return nil, fmt.Errorf("preparing API client: %w", err)
		}
	}
	return d, nil
}

// config looks for the API in this order: the kubeconfig that was named, the one in the data directory, the daemon's socket.
func (a *access) config() (config *rest.Config, namespace string, err error) {
	path := a.kubeconfig
	if path == "" {
		path = filepath.Join(a.dataDir, adminKubeconfig)
		if file, err := os.Open(path); err != nil {
			return a.socket(err)
		} else {
			file.Close()
		}
	}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}, &clientcmd.ConfigOverrides{})
	if config, err = loaded.ClientConfig(); err != nil {
		return nil, "", fmt.Errorf("reading kubeconfig %s: %w", path, err)
	}
	namespace, _, _ = loaded.Namespace()
	return config, namespace, nil
}

// socket is root's way in when no kubeconfig is at hand: plain HTTP over a Unix socket that only root can open.
func (a *access) socket(noKubeconfig error) (*rest.Config, string, error) {
	path := filepath.Join(a.dataDir, socketName)
	if _, err := os.Stat(path); err != nil {
		return nil, "", fmt.Errorf("no way to metald's API: %w, and no daemon's socket beside it: give --kubeconfig, set $METALD_KUBECONFIG, or run as root where metald runs, with its --data-dir", noKubeconfig)
	}
	return &rest.Config{
		Host: "http://metald",
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}, "", nil
}

// locate splits "namespace/name"; a bare name is in the door's namespace.
func (d *door) locate(host string) (namespace, name string) {
	if namespace, name, found := strings.Cut(host, "/"); found {
		return namespace, name
	}
	return d.namespace, host
}

func (d *door) host(ctx context.Context, arg string) (*metal3.BareMetalHost, error) {
	namespace, name := d.locate(arg)
	var host metal3.BareMetalHost
	err := d.metal3.Get().Namespace(namespace).Resource("baremetalhosts").Name(name).Do(ctx).Into(&host)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("no host %q in namespace %q", name, namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("reading host %s: %w", name, err)
	}
	return &host, nil
}

// hosts lists one namespace, or all where it is empty.
func (d *door) hosts(ctx context.Context, namespace, selector string) ([]metal3.BareMetalHost, error) {
	var list metal3.BareMetalHostList
	err := d.metal3.Get().Namespace(namespace).Resource("baremetalhosts").Param("labelSelector", selector).Do(ctx).Into(&list)
	if err != nil {
		return nil, fmt.Errorf("listing hosts: %w", err)
	}
	return list.Items, nil
}

// beside reads an object of our group that has its host's name, and is content where there is none yet.
func (d *door) beside(ctx context.Context, resource, namespace, name string, into runtime.Object) error {
	err := d.metald.Get().Namespace(namespace).Resource(resource).Name(name).Do(ctx).Into(into)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading %s %s: %w", resource, name, err)
	}
	return nil
}

func (d *door) progresses(ctx context.Context, namespace string) (map[string]*v1alpha1.HostProgress, error) {
	var list v1alpha1.HostProgressList
	if err := d.metald.Get().Namespace(namespace).Resource("hostprogresses").Do(ctx).Into(&list); err != nil {
		return nil, fmt.Errorf("listing progress: %w", err)
	}
	byName := make(map[string]*v1alpha1.HostProgress, len(list.Items))
	for i, p := range list.Items {
		byName[p.Namespace+"/"+p.Name] = &list.Items[i]
	}
	return byName, nil
}
