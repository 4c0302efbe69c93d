// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metald.io/metald/api/v1alpha1"
)

// outcome is the verdict on one row.
type outcome string

const (
	created   outcome = "created"
	updated   outcome = "updated"
	unchanged outcome = "unchanged"
)

// enrolment makes hosts out of rows.
type enrolment struct {
	door   *door
	dryRun bool
	// hosts are those that metald has, by namespace/name; macs, addresses and serials say which of them has which.
	hosts                    map[string]*metal3.BareMetalHost
	macs, addresses, serials map[string]string
	// uncompared is set where a dry run met a Secret that this login may write and not read.
	uncompared bool
}

func newEnrolment(ctx context.Context, d *door, dryRun bool) (*enrolment, error) {
	all, err := d.hosts(ctx, "", "")
	if err != nil {
		return nil, err
	}
	e := &enrolment{door: d, dryRun: dryRun, hosts: map[string]*metal3.BareMetalHost{}, macs: map[string]string{}, addresses: map[string]string{},
		serials: map[string]string{}}
	for i, h := range all {
		key := h.Namespace + "/" + h.Name
		e.hosts[key] = &all[i]
		e.macs[strings.ToLower(h.Spec.BootMACAddress)] = key
		e.addresses[bmcKey(h.Spec.BMC.Address)] = key
		e.serials[strings.ToLower(h.Annotations[v1alpha1.SerialNumberAnnotation])] = key
	}
	return e, nil
}

// row makes the world agree with one row. It may be repeated: what is already so is not written again.
func (e *enrolment) row(ctx context.Context, r hostRow) (outcome, error) {
	if r.problem != nil {
		return "", r.problem
	}
	key := r.namespace + "/" + r.name
	if other := e.macs[r.bootMAC]; other != "" && other != key {
		return "", fmt.Errorf("boot MAC %s is already that of %s", r.bootMAC, other)
	}
	if other := e.addresses[bmcKey(r.bmcAddress)]; other != "" && other != key {
		return "", fmt.Errorf("BMC %s is already that of %s", r.bmcAddress, other)
	}
	if other := e.serials[strings.ToLower(r.serialNumber)]; r.serialNumber != "" && other != "" && other != key {
		return "", fmt.Errorf("serial number %s is already that of %s", r.serialNumber, other)
	}
	have := e.hosts[key]
	if have != nil {
		if err := mayChange(have, r); err != nil {
			return "", err
		}
	}
	// The Secret goes first: a host without its credentials would be called an error by the mind for a moment.
	secret, err := e.secret(ctx, r)
	if err != nil {
		return "", err
	}
	host, err := e.host(ctx, have, r)
	if err != nil {
		return "", err
	}
	if host == unchanged && secret != unchanged {
		return updated, nil
	}
	return host, nil
}

// mayChange refuses what would silently turn one host into another.
func mayChange(have *metal3.BareMetalHost, r hostRow) error {
	if mac := strings.ToLower(have.Spec.BootMACAddress); mac != "" && mac != r.bootMAC {
		return fmt.Errorf("boot MAC is %s and cannot become %s: forget the host first, then import it anew", mac, r.bootMAC)
	}
	if have.Spec.BMC.Address != "" && have.Spec.BMC.Address != r.bmcAddress {
		switch have.Status.Provisioning.State {
		case metal3.StateNone, metal3.StateUnmanaged, metal3.StateRegistering:
		default:
			return fmt.Errorf("BMC is %s and cannot become %s while the host is %s", have.Spec.BMC.Address, r.bmcAddress, have.Status.Provisioning.State)
		}
	}
	if !have.DeletionTimestamp.IsZero() {
		return errors.New("the host is being deleted")
	}
	return nil
}

func (r hostRow) secretName() string { return r.name + "-bmc" }

func (e *enrolment) host(ctx context.Context, have *metal3.BareMetalHost, r hostRow) (outcome, error) {
	if have == nil {
		host := &metal3.BareMetalHost{
			TypeMeta:   metav1.TypeMeta{APIVersion: metal3.GroupVersion.String(), Kind: "BareMetalHost"},
			ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: r.name, Labels: r.labels(), Annotations: r.annotations()},
			Spec: metal3.BareMetalHostSpec{
				BMC:            metal3.BMCDetails{Address: r.bmcAddress, CredentialsName: r.secretName()},
				BootMACAddress: r.bootMAC,
				Architecture:   r.architecture,
			},
		}
		err := e.door.metal3.Post().Namespace(r.namespace).Resource("baremetalhosts").VersionedParams(e.createOptions(), metav1.ParameterCodec).Body(host).Do(ctx).Error()
		if err != nil {
			return "", fmt.Errorf("writing host: %w", err)
		}
		return created, nil
	}
	patch := tree{}
	for _, f := range []struct {
		have, want string
		path       []string
	}{
		{have.Spec.BMC.Address, r.bmcAddress, []string{"spec", "bmc", "address"}},
		{have.Spec.BMC.CredentialsName, r.secretName(), []string{"spec", "bmc", "credentialsName"}},
		{strings.ToLower(have.Spec.BootMACAddress), r.bootMAC, []string{"spec", "bootMACAddress"}},
		{have.Spec.Architecture, r.architecture, []string{"spec", "architecture"}},
	} {
		if f.want != "" && f.want != f.have {
			patch.put(f.want, f.path...)
		}
	}
	patch.putMissing(have.Labels, r.labels(), "metadata", "labels")
	patch.putMissing(have.Annotations, r.annotations(), "metadata", "annotations")
	if len(patch) == 0 {
		return unchanged, nil
	}
	if err := e.door.patchHost(ctx, r.namespace, r.name, patch, e.patchOptions()); err != nil {
		return "", err
	}
	return updated, nil
}

func (r hostRow) labels() map[string]string {
	return present(map[string]string{v1alpha1.ZoneLabel: r.zone, v1alpha1.RegionLabel: r.region, v1alpha1.RackLabel: r.rack})
}

func (r hostRow) annotations() map[string]string {
	return present(map[string]string{v1alpha1.BMCCertificateAnnotation: r.bmcCertificate, v1alpha1.SerialNumberAnnotation: r.serialNumber})
}

func present(m map[string]string) map[string]string {
	for k, v := range m {
		if v == "" {
			delete(m, k)
		}
	}
	return m
}

func (e *enrolment) createOptions() *metav1.CreateOptions {
	return &metav1.CreateOptions{DryRun: dryRunValue(e.dryRun), FieldManager: fieldManager, FieldValidation: "Strict"}
}

func (e *enrolment) patchOptions() *metav1.PatchOptions {
	return &metav1.PatchOptions{DryRun: dryRunValue(e.dryRun), FieldManager: fieldManager, FieldValidation: "Strict"}
}

// dryRunValue lets the server judge a write without keeping it.
func dryRunValue(on bool) []string {
	if on {
		return []string{metav1.DryRunAll}
	}
	return nil
}

// patchHost changes some fields of a host and leaves alone those that this program does not know.
func (d *door) patchHost(ctx context.Context, namespace, name string, patch tree, options *metav1.PatchOptions) error {
	body, err := json.Marshal(patch)
	if err == nil {
		err = d.metal3.Patch(types.MergePatchType).Namespace(namespace).Resource("baremetalhosts").Name(name).
			VersionedParams(options, metav1.ParameterCodec).Body(body).Do(ctx).Error()
	}
	if err != nil {
		return fmt.Errorf("writing host %s: %w", name, err)
	}
	return nil
}

// tree is a JSON merge patch under construction.
type tree map[string]any

func (t tree) put(value any, path ...string) {
	for _, key := range path[:len(path)-1] {
		next, ok := t[key].(tree)
		if !ok {
			next = tree{}
			t[key] = next
		}
		t = next
	}
	t[path[len(path)-1]] = value
}

// putMissing puts those entries of want that have lacks or has otherwise.
func (t tree) putMissing(have, want map[string]string, path ...string) {
	for k, v := range want {
		if have[k] != v {
			t.put(v, append(path, k)...)
		}
	}
}
