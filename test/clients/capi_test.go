// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	extensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	capi "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// clusterAPI is the module with the CustomResourceDefinitions; its types are a module of their own, of the same version.
const clusterAPI = "sigs.k8s.io/cluster-api@v1.14.2"

// definitions are Cluster API's own, as it ships them.
func definitions(t *testing.T) []*extensionsv1.CustomResourceDefinition {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", clusterAPI).Output()
	if err != nil {
		t.Fatalf("fetching %s: %v\n%s", clusterAPI, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	var all []*extensionsv1.CustomResourceDefinition
	for _, room := range []string{"core", "bootstrap/kubeadm", "controlplane/kubeadm"} {
		files, err := filepath.Glob(filepath.Join(module.Dir, room, "config/crd/bases/*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no definitions of %s in %s: %v", room, module.Dir, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			definition := new(extensionsv1.CustomResourceDefinition)
			if err := yaml.UnmarshalStrict(text, definition); err != nil {
				t.Fatalf("reading %s: %v", file, err)
			}
			all = append(all, definition)
		}
	}
	return all
}

// All of Cluster API's kinds are taken and served; a Cluster owns a Machine, which goes with it.
func TestClusterAPIsKinds(t *testing.T) {
	m := startMetald(t)
	s := scheme(t)
	for _, add := range []func() error{func() error { return extensionsv1.AddToScheme(s) }, func() error { return capi.AddToScheme(s) }} {
		if err := add(); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(m.client(t, m.login(t, "capi", "metald:admins")), client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	all := definitions(t)
	for _, definition := range all {
		if err := c.Create(t.Context(), definition); err != nil {
			t.Fatalf("defining %s: %v", definition.Name, err)
		}
	}
	for _, definition := range all {
		eventually(t, definition.Name+" is served", func() bool {
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(definition), definition); err != nil {
				return false
			}
			return slices.ContainsFunc(definition.Status.Conditions, func(c extensionsv1.CustomResourceDefinitionCondition) bool {
				return c.Type == extensionsv1.Established && c.Status == extensionsv1.ConditionTrue
			})
		})
	}
	t.Logf("%d definitions of Cluster API are served", len(all))

	paused := true
	cluster := &capi.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "one"}, Spec: capi.ClusterSpec{
		Paused:               &paused,
		ClusterNetwork:       capi.ClusterNetwork{Pods: capi.NetworkRanges{CIDRBlocks: []string{"10.244.0.0/16"}}},
		ControlPlaneEndpoint: capi.APIEndpoint{Host: "192.0.2.1", Port: 6443},
		InfrastructureRef:    capi.ContractVersionedObjectReference{APIGroup: "infrastructure.cluster.x-k8s.io", Kind: "Metal3Cluster", Name: "one"},
	}}
	insist(t, func() error { return c.Create(t.Context(), cluster) })
	base := cluster.DeepCopy()
	cluster.Status.Conditions = []metav1.Condition{{Type: "Available", Status: metav1.ConditionFalse, Reason: "Waiting", LastTransitionTime: metav1.Now()}}
	if err := c.Status().Patch(t.Context(), cluster, client.MergeFrom(base)); err != nil {
		t.Fatalf("writing the cluster's status: %v", err)
	}
	secret := "one-bootstrap"
	machine := &capi.Machine{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "one-a", Labels: map[string]string{capi.ClusterNameLabel: "one"},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cluster, capi.GroupVersion.WithKind("Cluster"))}},
		Spec: capi.MachineSpec{ClusterName: "one", Bootstrap: capi.Bootstrap{DataSecretName: &secret},
			InfrastructureRef: capi.ContractVersionedObjectReference{APIGroup: "infrastructure.cluster.x-k8s.io", Kind: "Metal3Machine", Name: "one-a"}},
	}
	if err := c.Create(t.Context(), machine); err != nil {
		t.Fatalf("making a machine: %v", err)
	}
	wrong := machine.DeepCopy()
	wrong.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: "one-b"}
	wrong.Spec.ClusterName = ""
	if err := c.Create(t.Context(), wrong); !apierrors.IsInvalid(err) {
		t.Errorf("a machine of no cluster: got %v, want a refusal by Cluster API's own schema", err)
	}
	if err := c.Delete(t.Context(), cluster, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		t.Fatal(err)
	}
	for _, object := range []client.Object{machine, cluster} {
		eventually(t, object.GetName()+" is gone", func() bool {
			return apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(object), object))
		})
	}
}

// What Cluster API's Metal3 provider does to a host: choose it by label, claim it, hand it what it shall run, mark it, pause
// it, and let it go. It acts as an operator, and patches with the host's version in hand.
func TestHostIsClaimedAsByClusterAPI(t *testing.T) {
	m := startMetald(t)
	c, err := client.New(m.client(t, m.login(t, "capm3", "metald:operators")), client.Options{Scheme: scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	for n, rack := range []string{"a", "b"} {
		host := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n" + rack, Labels: map[string]string{"rack": rack}}}
		host.Spec.BootMACAddress = []string{"52:54:00:00:60:01", "52:54:00:00:60:02"}[n]
		host.Spec.BMC = metal3.BMCDetails{Address: "redfish://127.0.0.1:1/" + rack, CredentialsName: rack + "-bmc"}
		if err := c.Create(t.Context(), host); err != nil {
			t.Fatal(err)
		}
	}
	var hosts metal3.BareMetalHostList
	if err := c.List(t.Context(), &hosts, client.InNamespace("default"), client.MatchingLabels{"rack": "a"}); err != nil || len(hosts.Items) != 1 {
		t.Fatalf("choosing a host: got %d, err %v", len(hosts.Items), err)
	}
	host := &hosts.Items[0]
	if err := c.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "seed"}, StringData: map[string]string{"value": "#cloud-config"}}); err != nil {
		t.Fatal(err)
	}

	format := "raw"
	claim := func() error {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(host), host); err != nil {
			return err
		}
		base := host.DeepCopy()
		host.Spec.ConsumerRef = &corev1.ObjectReference{APIVersion: "infrastructure.cluster.x-k8s.io/v1beta2", Kind: "Metal3Machine", Namespace: "default", Name: "one-a"}
		host.Spec.Image = &metal3.Image{URL: "http://127.0.0.1:1/image.raw", Checksum: "http://127.0.0.1:1/image.raw.sha256", ChecksumType: metal3.SHA256, DiskFormat: &format}
		host.Spec.UserData = &corev1.SecretReference{Namespace: "default", Name: "seed"}
		host.Spec.AutomatedCleaningMode = metal3.CleaningModeMetadata
		host.Spec.Online = true
		host.Labels[capi.ClusterNameLabel] = "one"
		host.Annotations = map[string]string{metal3.PausedAnnotation: "metal3.io/capm3"}
		return c.Patch(t.Context(), host, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	}
	// The daemon writes the host's status meanwhile: a conflict is answered by looking again.
	insist(t, claim)
	stale := host.DeepCopy()
	insist(t, claim)
	stale.ResourceVersion = "1"
	base := stale.DeepCopy()
	stale.Spec.Online = false
	if err := c.Patch(t.Context(), stale, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})); !apierrors.IsConflict(err) {
		t.Errorf("a patch of an old version: got %v, want a conflict", err)
	}
	var is metal3.BareMetalHost
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(host), &is); err != nil {
		t.Fatal(err)
	}
	if is.Spec.ConsumerRef == nil || is.Spec.ConsumerRef.Name != "one-a" || is.Spec.Image == nil || is.Spec.UserData == nil || !is.Spec.Online {
		t.Errorf("the claimed host: got %+v", is.Spec)
	}
	if got, want := slices.Sorted(maps.Keys(is.Labels)), []string{capi.ClusterNameLabel, "rack"}; !slices.Equal(got, want) {
		t.Errorf("labels: got %v, want %v", got, want)
	}

	// Let go of, and no longer wanted.
	insist(t, func() error {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(host), host); err != nil {
			return err
		}
		base := host.DeepCopy()
		host.Spec.ConsumerRef, host.Spec.Image, host.Spec.UserData = nil, nil, nil
		delete(host.Labels, capi.ClusterNameLabel)
		delete(host.Annotations, metal3.PausedAnnotation)
		return c.Patch(t.Context(), host, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	})
	if err := c.Delete(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host is gone", func() bool {
		return apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(host), host))
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}
