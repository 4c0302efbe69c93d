// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// imagePoll is how often an image whose files were missing is looked at again.
const imagePoll = 30 * time.Second

// image reads an Image's files once and says in its status whether they are here and are what it names.
func (m *Mind) image(ctx context.Context, name string) (time.Duration, error) {
	i, err := m.Store.Images().Get(ctx, "", name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if c := meta.FindStatusCondition(i.Status.Conditions, "Ready"); c != nil && c.Status == metav1.ConditionTrue {
		return 0, nil
	}
	verdict, after := condition("Ready", true, "Verified", "files are here and their digests are right"), time.Duration(0)
	files := map[string]v1alpha1.File{"UKI": i.Spec.UKI, "root": i.Spec.Root.File}
	if i.Spec.Loader != nil {
		files["loader"] = *i.Spec.Loader
	}
	for what, f := range files {
		if err := m.Images.Verify(f); err != nil {
			verdict = condition("Ready", false, "FilesWrong", what+": "+err.Error()+"; next: metald image import DIR")
			after = imagePoll
		}
	}
	_, err = m.Store.Images().Update(ctx, "", name, func(i *v1alpha1.Image) error {
		verdict.ObservedGeneration, verdict.LastTransitionTime = i.Generation, metav1.NewTime(m.now())
		meta.SetStatusCondition(&i.Status.Conditions, verdict)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return after, err
}
