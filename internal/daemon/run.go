// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"metald.io/metald/internal/apiserver"
	"metald.io/metald/internal/cluster"
	"metald.io/metald/internal/desk"
	"metald.io/metald/internal/imaging"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/provision"
	"metald.io/metald/internal/pxe"
)

// Options is what Run is started with.
type Options struct {
	Config  Config
	DataDir string
	Logger  *slog.Logger
}

// Run opens the sockets that the configuration names and serves until ctx ends. It returns an error when the data directory
// is in use, a socket cannot be had, or the disk fails under it: then nothing more may be acknowledged.
func Run(ctx context.Context, o Options) error {
	// Most of the heap is the API's caches and definitions, which live for ever: a smaller headroom costs little time and
	// saves some 20 MB.
	debug.SetGCPercent(50)
	// The API library would tell systemd that it is ready before our kinds are served.
	notify := os.Getenv("NOTIFY_SOCKET")
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return fmt.Errorf("keeping systemd's socket: %w", err)
	}
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("making data directory: %w", err)
	}
	store, err := inventory.Open(o.DataDir, inventory.Options{Logger: o.Logger, Now: time.Now,
		Encryption: o.Config.Storage.Encryption, Etcd: o.Config.Storage.Etcd})
	if err != nil {
		return fmt.Errorf("opening the inventory: %w", err)
	}
	if n, err := store.Reseal(ctx); err != nil {
		o.Logger.Error("Secrets were not all encrypted under the newest key", "err", err)
	} else if n > 0 {
		o.Logger.Info("Secrets encrypted under the newest key", "secrets", n)
	}
	sockets, err := listen(o.Config, o.DataDir)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	d, err := New(o, store, sockets)
	if err != nil {
		sockets.close()
		return errors.Join(err, store.Close())
	}
	d.ready = func() error {
		debug.FreeOSMemory()
		if notify == "" {
			return nil
		}
		if err := os.Setenv("NOTIFY_SOCKET", notify); err != nil {
			return err
		}
		_, err := daemon.SdNotify(true, daemon.SdNotifyReady)
		return err
	}
	return errors.Join(d.Serve(ctx), store.Close())
}

// Sockets are what a daemon serves on; a nil one is not served.
type Sockets struct {
	API, Agents, Boot, Admin net.Listener
	// DHCP has one socket for each interface of the configuration, in its order, and Wires one to hear other DHCP servers there.
	DHCP  []net.PacketConn
	Wires []pxe.Wire
	TFTP  net.PacketConn
}

// listen opens every socket, or none.
func listen(c Config, dataDir string) (s Sockets, err error) {
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, door := range []struct {
		name, address string
		to            *net.Listener
	}{{"api", c.API.Listen, &s.API}, {"agents", c.Agents.Listen, &s.Agents}, {"boot", c.Boot.Listen, &s.Boot}} {
		if door.address == "" {
			continue
		}
		if *door.to, err = net.Listen("tcp", door.address); err != nil {
			return s, fmt.Errorf("opening %s.listen: %w", door.name, err)
		}
	}
	if s.Admin, err = listenAdmin(filepath.Join(dataDir, "metald.sock")); err != nil {
		return s, err
	}
	for _, i := range c.DHCP.Interfaces {
		conn, err := pxe.ListenDHCP(i.Name)
		if err != nil {
			return s, fmt.Errorf("opening DHCP on interface %s: %w", i.Name, err)
		}
		s.DHCP = append(s.DHCP, conn)
		wire, err := pxe.ListenWire(i.Name)
		if err != nil {
			return s, err
		}
		s.Wires = append(s.Wires, wire)
	}
	if c.TFTP.Listen != "" {
		if s.TFTP, err = net.ListenPacket("udp", c.TFTP.Listen); err != nil {
			return s, fmt.Errorf("opening tftp.listen: %w", err)
		}
	}
	return s, nil
}

func (s Sockets) close() {
	for _, l := range []net.Listener{s.API, s.Agents, s.Boot, s.Admin} {
		if l != nil {
			_ = l.Close()
		}
	}
	for _, c := range append(slices.Clone(s.DHCP), s.TFTP) {
		if c != nil {
			_ = c.Close()
		}
	}
	for _, w := range s.Wires {
		if c, ok := w.(io.Closer); ok {
			_ = c.Close()
		}
	}
}

// Daemon is all rooms in one struct.
type Daemon struct {
	Mind    *provision.Mind
	API     *apiserver.Server
	Desk    *desk.Desk
	Images  *imaging.Store
	Store   *inventory.Store
	config  Config
	pki     *PKI
	sockets Sockets
	dhcp    []*pxe.DHCP
	tftp    *pxe.TFTP
	log     *slog.Logger
	// ready is called once everything is served.
	ready  func() error
	apiLog *apiLog
	logins *logins
}

// New puts the rooms together over a store and sockets that are open.
func New(o Options, store *inventory.Store, sockets Sockets) (*Daemon, error) {
	pki, err := EnsurePKI(o.DataDir, o.Config.CertificateNames(), time.Now())
	if err != nil {
		return nil, err
	}
	if err := pki.WriteAdminKubeconfig(o.Config.ServerURL()); err != nil {
		return nil, err
	}
	images, err := imaging.OpenStore(filepath.Join(o.DataDir, "images"))
	if err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	d := &Daemon{Store: store, Images: images, config: o.Config, pki: pki, sockets: sockets, log: o.Logger,
		ready:  func() error { return nil },
		apiLog: &apiLog{path: filepath.Join(o.DataDir, "audit", "api.log"), most: apiLogBytes, keep: apiLogFiles},
		logins: &logins{path: filepath.Join(o.DataDir, "pki", issuedFile), store: store, log: o.Logger}}
	d.API, err = apiserver.New(apiserver.Config{
		Etcd: store.Etcd(), Transformer: store.Transformer, Checks: store.SealChecks(), Listener: sockets.API,
		Certificate: pki.Certificate, Key: pki.Key, ClientCA: pki.ClientCA, Logger: o.Logger,
		Extra: ExtraPaths(store, o.Logger), AuditLog: d.apiLog, Authentication: authentication(o.Config.API.Authentication),
	})
	if err != nil {
		return nil, fmt.Errorf("making the API server: %w", err)
	}
	c := o.Config
	d.Mind = provision.New(provision.Config{
		Store: store, Images: images, BMCs: controllers{},
		Connect: func(kubeconfig []byte, server string) (provision.Cluster, error) {
			return cluster.Dial(kubeconfig, server)
		},
		Limits: provision.Limits{Boot: c.Limits.BootTimeout, Join: c.Limits.JoinTimeout, Poll: c.BMC.PollInterval,
			Sweep: c.BMC.SweepInterval, DestructivePerHour: c.Limits.DestructiveActsPerHour, Boots: c.Limits.BootsAtOnce},
		SweepPrefixes: c.BMC.Sweep, Logger: o.Logger, Now: time.Now,
	})
	d.Desk = desk.New(desk.Config{
		Registrar: registrar{d.Mind}, Orders: orders{d.Mind}, Inventories: store.Inventories(), Lookout: d.Mind, Logger: o.Logger, Now: time.Now,
	})
	loaders, err := readLoaders(c.TFTP)
	if err != nil {
		return nil, err
	}
	for n, i := range c.DHCP.Interfaces {
		subnet := pxe.Subnet{Interface: i.Name, Server: i.Server, Prefix: i.Subnet, First: i.Range.First, Last: i.Range.Last,
			Router: i.Router, DNS: i.DNS, LeaseTime: i.LeaseTime, BootURL: c.Boot.URL, AgentURL: c.Agents.URL,
			Loaders: map[string]string{}}
		for _, l := range loaders {
			subnet.Loaders[l.Arch] = l.Name
		}
		if err := subnet.Validate(); err != nil {
			return nil, err
		}
		server := pxe.NewDHCP(subnet, d.Mind, leases{store.Records("leases")}, d.Mind, o.Logger)
		if n < len(sockets.Wires) {
			server.Guard(sockets.Wires[n], i.BesideOthers)
		}
		d.dhcp = append(d.dhcp, server)
	}
	d.tftp = pxe.NewTFTP(loaders, holders(d.dhcp).host, o.Logger)
	return d, nil
}

// Serve works until ctx ends or a room fails.
func (d *Daemon) Serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.API.Run(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.Store.Fatal():
			return fmt.Errorf("writing the inventory, nothing more is acknowledged: %w", err)
		}
	})
	g.Go(func() error { return d.Store.KeepRecord(ctx) })
	g.Go(func() error { return d.logins.keep(ctx) })
	g.Go(func() error { return d.Mind.Run(ctx) })
	for i, server := range d.dhcp {
		g.Go(func() error {
			select {
			case <-d.Mind.Synced(): // what came meanwhile waits in the socket
			case <-ctx.Done():
				return nil
			}
			return server.Serve(ctx, d.sockets.DHCP[i])
		})
	}
	if conn := d.sockets.TFTP; conn != nil {
		g.Go(func() error { return d.tftp.Serve(ctx, conn) })
	}
	if l := d.sockets.Boot; l != nil {
		serveHTTP(ctx, g, l, pxe.NewFiles(d.Images, transfers{d.Mind, holders(d.dhcp)}, d.log))
	}
	if l := d.sockets.Agents; l != nil {
		pair, err := tls.X509KeyPair(d.pki.Certificate, d.pki.Key)
		if err != nil {
			return fmt.Errorf("reading the serving certificate: %w", err)
		}
		serveHTTP(ctx, g, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
			NextProtos: []string{"http/1.1"}}), d.Desk)
	}
	g.Go(func() error {
		select {
		case <-d.API.Ready():
		case <-ctx.Done():
			return nil
		}
		serveHTTP(ctx, g, d.sockets.Admin, adminProxy(d.API.Loopback()))
		d.log.Info("ready", "api", d.config.ServerURL(), "agents", d.config.Agents.URL, "boot", d.config.Boot.URL, "dhcp", len(d.dhcp))
		return d.ready()
	})
	err := errors.Join(g.Wait(), d.apiLog.Close())
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serveHTTP serves one door until ctx ends. Long polls end with it: their context is the server's.
func serveHTTP(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	g.Go(func() error {
		if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving %s: %w", l.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
		return nil
	})
}
