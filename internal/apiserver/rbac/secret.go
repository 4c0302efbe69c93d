// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// errJSONPatch is why who may not read a Secret may not patch it in this one way.
var errJSONPatch = errors.New("a JSON patch of a Secret is for who may read it: send a merge patch, or apply")

// secretRegistry is the registry of Secrets. Who may write one and not read it, as an operator who hands over a BMC's password,
// is told that it was written, and nothing of what is in it: the answer to a patch, or a refusal of one, would else be a way
// to read.
type secretRegistry struct {
	*genericregistry.Store
	access *Access
}

// Secrets makes a registry of Secrets keep what is in them from who may not read it.
func (a *Access) Secrets(store *genericregistry.Store) rest.Storage {
	return secretRegistry{Store: store, access: a}
}

// Update implements rest.Updater.
func (s secretRegistry) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, force bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	answer, created, err := s.Store.Update(ctx, name, object, create, update, force, options)
	if err != nil && !s.access.mayReadSecret(ctx, name) {
		err = withoutValues(name, err)
	}
	return s.shown(ctx, name, answer), created, err
}

// withoutValues is a refusal that names the fields that are wrong and not what is in them: to tell what does not fit, the
// library quotes what a patch would have made, stored values and all.
func withoutValues(name string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code == http.StatusInternalServerError {
		return apierrors.NewInternalError(errors.New("writing the Secret did not work; why is for who may read it"))
	}
	is := status.Status()
	if is.Code != http.StatusBadRequest && is.Code != http.StatusUnprocessableEntity {
		return err // says nothing of values: it is not there, was changed meanwhile, must not be
	}
	hidden := metav1.Status{Status: metav1.StatusFailure, Code: is.Code, Reason: is.Reason,
		Message: fmt.Sprintf("Secret %q was refused; what does not fit is for who may read it", name)}
	if is.Details != nil {
		hidden.Details = &metav1.StatusDetails{Name: name, Kind: "secrets"}
		for _, cause := range is.Details.Causes {
			hidden.Message += ", " + cause.Field
			hidden.Details.Causes = append(hidden.Details.Causes, metav1.StatusCause{Type: cause.Type, Field: cause.Field})
		}
	}
	return &apierrors.StatusError{ErrStatus: hidden}
}

// Delete implements rest.GracefulDeleter.
func (s secretRegistry) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	answer, gone, err := s.Store.Delete(ctx, name, validate, options)
	return s.shown(ctx, name, answer), gone, err
}

// DeleteCollection implements rest.CollectionDeleter.
func (s secretRegistry) DeleteCollection(ctx context.Context, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions, which *metainternalversion.ListOptions) (runtime.Object, error) {
	answer, err := s.Store.DeleteCollection(ctx, validate, options, which)
	if list, ok := answer.(*corev1.SecretList); ok && err == nil && !s.access.mayReadSecret(ctx, "") {
		for i := range list.Items {
			list.Items[i] = *outline(&list.Items[i])
		}
	}
	return answer, err
}

// shown is what the asker may see of an answer.
func (s secretRegistry) shown(ctx context.Context, name string, answer runtime.Object) runtime.Object {
	if secret, ok := answer.(*corev1.Secret); ok && secret != nil && !s.access.mayReadSecret(ctx, name) {
		return outline(secret)
	}
	return answer
}

// outline is a Secret without anything that somebody has put into it, labels and annotations among it.
func outline(secret *corev1.Secret) *corev1.Secret {
	return &corev1.Secret{TypeMeta: secret.TypeMeta, Type: secret.Type, ObjectMeta: metav1.ObjectMeta{
		Name: secret.Name, Namespace: secret.Namespace, UID: secret.UID, ResourceVersion: secret.ResourceVersion,
		CreationTimestamp: secret.CreationTimestamp, DeletionTimestamp: secret.DeletionTimestamp,
	}}
}

// mayReadSecret says whether the asker may get a Secret of the request's namespace, or list all of them where no name is given.
func (a *Access) mayReadSecret(ctx context.Context, name string) bool {
	who, ok := request.UserFrom(ctx)
	if !ok {
		return false
	}
	asked := authorizer.AttributesRecord{User: who, Verb: "get", Namespace: request.NamespaceValue(ctx), APIVersion: "v1",
		Resource: "secrets", Name: name, ResourceRequest: true}
	if name == "" {
		asked.Verb = "list"
	}
	decision, _, err := a.Authorize(ctx, asked)
	return err == nil && decision == authorizer.DecisionAllow
}

// KeepSecrets refuses JSON patches of Secrets by who may not read them: such a patch can copy a password to a place where it is
// no secret, as a finalizer's name that a namespace's status tells. The other patches only say what shall be.
func (a *Access) KeepSecrets(c *genericapiserver.Config) {
	inner := c.BuildHandlerChainFunc
	c.BuildHandlerChainFunc = func(handler http.Handler, c *genericapiserver.Config) http.Handler {
		return inner(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			info, ok := request.RequestInfoFrom(ctx)
			if ok && info.APIGroup == "" && info.Resource == "secrets" && r.Method == http.MethodPatch && !onlySays(r) && !a.mayReadSecret(ctx, info.Name) {
				err := apierrors.NewForbidden(corev1.Resource("secrets"), info.Name, errJSONPatch)
				responsewriters.ErrorNegotiated(err, c.Serializer, corev1.SchemeGroupVersion, w, r)
				return
			}
			handler.ServeHTTP(w, r)
		}), c)
	}
}

// onlySays tells patches that hold what shall be from those that may move what is there.
func onlySays(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return false
	}
	switch types.PatchType(kind) {
	case types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType, types.ApplyCBORPatchType:
		return true
	}
	return false
}
