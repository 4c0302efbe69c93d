// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
)

// listenAdmin opens the socket that lets root on this machine in without a kubeconfig. The inventory's lock is held by now,
// so a socket that is already there is a dead daemon's.
func listenAdmin(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("removing the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the local socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("closing the local socket to others: %w", err)
	}
	return rootOnly{l}, nil
}

// rootOnly drops connections of anybody but root and the daemon's own user, whatever the file's mode has become.
type rootOnly struct{ net.Listener }

func (l rootOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(conn); err == nil && (uid == 0 || int(uid) == os.Getuid()) {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// peer is the user at the other end of a unix socket.
func peer(conn net.Conn) (uint32, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// localRoot is who comes through the local socket, to the API.
const localRoot = "metald:root"

// adminProxy carries the local socket's requests to the API with the daemon's own credentials.
func adminProxy(loopback *rest.Config) http.Handler {
	target, _, err := rest.DefaultServerUrlFor(loopback)
	if err != nil {
		target = &url.URL{Scheme: "https", Host: loopback.Host}
	}
	transport, err := rest.TransportFor(loopback)
	if err != nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "reaching the API: "+err.Error(), http.StatusBadGateway)
		})
	}
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, target.Host
			// What root does is not recorded as the daemon's own doing.
			if len(r.Out.Header.Values(authenticationv1.ImpersonateUserHeader)) == 0 {
				r.Out.Header.Set(authenticationv1.ImpersonateUserHeader, localRoot)
				r.Out.Header.Set(authenticationv1.ImpersonateGroupHeader, user.SystemPrivilegedGroup)
			}
		},
		FlushInterval: -1, // watches
	}
}
