// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"net"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	apiaudit "k8s.io/apiserver/pkg/audit"
	auditpolicy "k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	auditlog "k8s.io/apiserver/plugin/pkg/audit/log"

	"metald.io/metald/internal/apiserver/shelf"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// observe has the inventory's record tell who wrote what, and the API's own log who asked for what.
func observe(c *genericapiserver.Config, config Config) {
	c.BuildHandlerChainFunc = func(handler http.Handler, c *genericapiserver.Config) http.Handler {
		return genericapiserver.DefaultBuildHandlerChain(withActor(shelf.Serve(handler)), c)
	}
	if config.AuditLog != nil {
		c.AuditBackend = auditlog.NewBackend(config.AuditLog, auditlog.FormatJson, auditv1.SchemeGroupVersion)
		c.AuditPolicyRuleEvaluator = auditpolicy.NewPolicyRuleEvaluator(auditPolicy())
	}
	if len(config.Extra) > 0 {
		usual := genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch"), sets.NewString())
		c.LongRunningFunc = func(r *http.Request, info *request.RequestInfo) bool {
			return config.Extra[r.URL.Path] != nil || usual(r, info)
		}
	}
}

// auditPolicy logs every request when it is answered, but for those that ask whether the server lives: who, what, from where
// and what came of it. No body is ever logged, so no Secret is.
func auditPolicy() *auditinternal.Policy {
	return &auditinternal.Policy{
		OmitStages: []auditinternal.Stage{auditinternal.StageRequestReceived},
		Rules: []auditinternal.PolicyRule{
			{Level: auditinternal.LevelNone, NonResourceURLs: []string{"/healthz*", "/livez*", "/readyz*"}},
			{Level: auditinternal.LevelMetadata},
		},
	}
}

// withActor hands on who asks: it stands behind authentication and authorization, and what writes to the inventory behind it.
func withActor(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if who, ok := request.UserFrom(ctx); ok && changes(r.Method) {
			actor := audit.Actor{User: who.GetName(), Groups: who.GetGroups(), Via: audit.ViaDoor, Address: r.RemoteAddr}
			if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
				actor.Address = host
			}
			// Who came as somebody else is known under both names; but the server itself only lets others in, see daemon's socket.
			if came := apiaudit.AuditContextFrom(ctx).GetEventUser().Username; came != "" && came != actor.User && came != user.APIServerUser {
				actor.User, actor.As = came, actor.User
			}
			id, _ := apiaudit.AuditIDFrom(ctx)
			r = r.WithContext(inventory.WithActor(ctx, actor, string(id)))
		}
		handler.ServeHTTP(w, r)
	})
}

func changes(method string) bool { return !strings.Contains("GET HEAD OPTIONS", method) }

// serveExtra mounts what others serve behind the door's authentication and authorization.
func serveExtra(front *genericapiserver.GenericAPIServer, extra map[string]http.Handler) {
	for path, handler := range extra {
		front.Handler.NonGoRestfulMux.Handle(path, handler)
	}
}
