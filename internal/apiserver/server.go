// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	noopoteltrace "go.opentelemetry.io/otel/trace/noop"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/storage/value"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"

	"metald.io/metald/internal/apiserver/collect"
	"metald.io/metald/internal/apiserver/rbac"
)

// shutdownGrace is how long requests may take to end when the server stops; watches are ended at once.
const shutdownGrace = 5 * time.Second

// Config is what the users' door needs.
type Config struct {
	// Etcd is the inventory behind an etcd client, or a real etcd's client. The server does not close it.
	Etcd *clientv3.Client
	// Transformer is what the values of a resource go through on their way into the store and out of it; nil leaves them as
	// they are.
	Transformer func(schema.GroupResource) value.Transformer
	// Checks are further conditions of /readyz.
	Checks []healthz.HealthChecker
	// Listener is the TCP socket the API is served on. The server closes it.
	Listener net.Listener
	// Certificate and Key serve TLS, in PEM.
	Certificate, Key []byte
	// ClientCA is the authorities of client certificates, in PEM. A certificate's O is a group, its CN a user.
	ClientCA []byte
	// Authentication is an AuthenticationConfiguration (apiserver.config.k8s.io/v1): the OpenID Connect issuers whose tokens let
	// in, beside client certificates. Without Read there are none.
	Authentication Document
	// Extra is served beside the API, by path: what only some may ask of the daemon. Who may is said by nonResourceURLs.
	Extra map[string]http.Handler
	// AuditLog gets a line of JSON for each request (audit.k8s.io/v1), without any body; nil is no log.
	AuditLog io.Writer
	// Limits bound what clients may ask at the same time.
	Limits Limits
	Logger *slog.Logger

	counts flowcontrolrequest.StorageObjectCountTracker // how many objects there are of each kind; made by New

	tokens *tokens // made of Authentication by New
}

// Server is the users' door.
type Server struct {
	front     *genericapiserver.GenericAPIServer
	custom    *apiextensions.CustomResourceDefinitions
	collector *collect.Collector
	access    *rbac.Access
	tokens    *tokens // nil where certificates alone let in
	ready     chan struct{}
	logger    *slog.Logger
}

// New builds the door; Run opens it.
func New(config Config) (*Server, error) {
	config.counts = flowcontrolrequest.NewStorageObjectCountTracker()
	native := newBackend(config, nativeCodec())
	gate := &lifecycle{}
	access := rbac.New(native.client, storagePrefix, config.Logger)
	var err error
	if config.tokens, err = newTokens(config.Authentication, config.Logger); err != nil {
		return nil, err
	}
	frontConfig, err := frontConfig(config, native, gate, access)
	if err != nil {
		return nil, err
	}
	flows, err := fair(frontConfig)
	if err != nil {
		return nil, err
	}
	custom, err := newCustom(*frontConfig, config)
	if err != nil {
		return nil, fmt.Errorf("building the server of custom resources: %w", err)
	}
	front, err := frontConfig.Complete(flows).New("metald", custom.GenericAPIServer)
	if err != nil {
		return nil, fmt.Errorf("building the API server: %w", err)
	}
	store, err := installNative(front, native, access)
	if err != nil {
		return nil, err
	}
	gate.namespaces = store
	front.ShutdownTimeout = shutdownGrace
	serveExtra(front, config.Extra)

	s := &Server{front: front, custom: custom, access: access, tokens: config.tokens, ready: make(chan struct{}), logger: config.Logger}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if err := front.AddReadyzChecks(append(config.Checks, healthz.NamedCheck("definitions", s.definitionsServed))...); err != nil {
		return nil, fmt.Errorf("adding a readiness check: %w", err)
	}
	if err := s.publishCustomGroups(); err != nil {
		return nil, err
	}
	if s.collector, err = collect.New(collect.Config{
		Client: native.client, Prefix: storagePrefix, CoreGroup: coreGroup, Transformer: native.seal,
		Native: collectedKinds(), Definitions: custom.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister(),
		Door: front.LoopbackClientConfig, Writer: fieldManager, Logger: s.logger,
	}); err != nil {
		return nil, err
	}
	return s, nil
}

// frontConfig is the configuration of the server in front, which the one behind it shares.
func frontConfig(config Config, native *backend, gate *lifecycle, access *rbac.Access) (*genericapiserver.Config, error) {
	c := genericapiserver.NewConfig(nativeCodecs)
	if err := secure(c, config); err != nil {
		return nil, err
	}
	c.Authorization.Authorizer, c.RuleResolver = access, access
	observe(c, config)
	access.KeepSecrets(c)
	limit(c, config.Limits)
	c.StorageObjectCountTracker = config.counts
	c.EffectiveVersion = effectiveVersion()
	c.RESTOptionsGetter = native
	c.AdmissionControl = admission.NewChainHandler(gate, metal3Rules{})
	c.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	namer := openapinamer.NewDefinitionNamer(servedScheme)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openAPIDefinitions, namer)
	c.OpenAPIConfig.Info.Title = "metald"
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openAPIDefinitions, namer)
	c.OpenAPIV3Config.Info.Title = "metald"
	c.ShutdownWatchTerminationGracePeriod = shutdownGrace
	c.EnableProfiling = false
	return c, nil
}

// newCustom builds the server of custom resources, which gets each request that the front has no answer for.
func newCustom(shared genericapiserver.Config, door Config) (*apiextensions.CustomResourceDefinitions, error) {
	shared.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	shared.RESTOptionsGetter = newBackend(door, apiextensions.Codecs.LegacyCodec(apiextensionsv1.SchemeGroupVersion))
	shared.Serializer = apiextensions.Codecs
	shared.OpenAPIConfig = nil
	shared.OpenAPIV3Config = customOpenAPI()
	shared.SkipOpenAPIInstallation = true // the front publishes for both
	shared.MergedResourceConfig = apiextensions.DefaultAPIResourceConfigSource()
	config := apiextensions.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: shared},
		ExtraConfig: apiextensions.ExtraConfig{
			CRDRESTOptionsGetter: newBackend(door, unstructured.UnstructuredJSONScheme),
			MasterCount:          1,
			ServiceResolver:      webhook.NewDefaultServiceResolver(),
			AuthResolverWrapper: webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, shared.LoopbackClientConfig,
				noopoteltrace.NewTracerProvider()),
		},
	}
	return config.Complete().New(genericapiserver.NewEmptyDelegate())
}

// Run serves until ctx ends, then lets running requests end within seconds. It returns nil after a clean end.
func (s *Server) Run(ctx context.Context) error {
	prepared := s.front.PrepareRun()
	if err := s.publishOpenAPI(); err != nil {
		return err
	}

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go s.access.Follow(ctx)
	if s.tokens != nil {
		go s.tokens.follow(ctx)
	}
	setup := make(chan error, 1)
	go func() {
		err := s.settle(ctx)
		if err != nil {
			stop(err) // an API without its kinds is of no use
		}
		setup <- err
	}()
	err := prepared.RunWithContext(ctx)
	stop(nil)
	if failed := <-setup; failed != nil && !errors.Is(failed, context.Canceled) {
		return failed
	}
	if err != nil {
		return fmt.Errorf("serving the API: %w", err)
	}
	return nil
}

// settle makes what a fresh inventory lacks: the kept namespaces, the ready roles and the definitions of every kind. Then it
// collects garbage until ctx ends.
func (s *Server) settle(ctx context.Context) error {
	start := time.Now()
	if err := s.ensureNamespaces(ctx); err != nil {
		return err
	}
	if err := rbac.EnsureRoles(ctx, s.front.LoopbackClientConfig, fieldManager); err != nil {
		return err
	}
	if err := s.ensureFlows(ctx); err != nil {
		return err
	}
	if err := s.ensureDefinitions(ctx); err != nil {
		return err
	}
	close(s.ready)
	s.logger.Info("API is ready", "url", s.front.LoopbackClientConfig.Host, "took", time.Since(start).Round(time.Millisecond))
	s.collector.Run(ctx)
	return nil
}

// Ready is closed once every kind of metald's is served.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Loopback is an administrator's way in for this process and for what it lets through, such as a socket that only root
// may open.
func (s *Server) Loopback() *rest.Config { return rest.CopyConfig(s.front.LoopbackClientConfig) }

func (s *Server) definitionsServed(*http.Request) error {
	select {
	case <-s.ready:
		return nil
	default:
		return errors.New("the definitions of metald's kinds are not served yet")
	}
}
