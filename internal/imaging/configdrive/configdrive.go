// SPDX-License-Identifier: Apache-2.0

// Package configdrive makes the config drive that a Metal3 user's own image reads at its first boot: an ISO 9660 file system
// labelled config-2 with OpenStack's files in it, as Ironic makes it. It must not know hosts or Secrets as objects, nor how
// the drive comes to a disk. The agent does not link it.
//
// Start reading at Build.
package configdrive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"
)

// Label is the file system's.
const Label = "config-2"

// MaxSize is the largest drive in bytes that Ironic makes.
const MaxSize = 64 << 20

// Host is whose drive it is.
type Host struct {
	// UUID is the BareMetalHost's UID.
	UUID, Namespace, Name string
}

// Data are what a BareMetalHost's Secrets hold, nil for none. Meta and Network are YAML or JSON; User is what it is.
type Data struct{ Meta, User, Network []byte }

// versions are the directories that hold the same files: cloud-init and cloudbase-init read latest, older programs the first
// version of the format.
var versions = []string{"2012-08-10", "latest"}

// Build makes a drive. The same host and data give the same bytes. An error about Meta or Network is the user's to mend.
func Build(host Host, data Data) ([]byte, error) {
	// What the baremetal-operator puts there; the user's own keys replace it.
	meta := map[string]any{
		"uuid": host.UUID, "name": host.Name, "metal3-namespace": host.Namespace, "metal3-name": host.Name,
		"local-hostname": host.Name, "local_hostname": host.Name,
	}
	if err := merge(meta, data.Meta); err != nil {
		return nil, fmt.Errorf("reading metaData: %w", err)
	}
	files := map[string][]byte{}
	var err error
	if files["meta_data.json"], err = json.Marshal(meta); err != nil {
		return nil, fmt.Errorf("writing meta_data.json: %w", err)
	}
	if len(bytes.TrimSpace(data.Network)) > 0 {
		network := map[string]any{}
		if err := merge(network, data.Network); err != nil {
			return nil, fmt.Errorf("reading networkData: %w", err)
		}
		if files["network_data.json"], err = json.Marshal(network); err != nil {
			return nil, fmt.Errorf("writing network_data.json: %w", err)
		}
	}
	if len(data.User) > 0 {
		files["user_data"] = data.User
	}
	root := &node{}
	for _, version := range versions {
		for name, b := range files {
			root.add([]string{"openstack", version, name}, b)
		}
	}
	image := root.image()
	if len(image) > MaxSize {
		return nil, fmt.Errorf("making the config drive: it has %d MiB, and at most %d are allowed", len(image)>>20, MaxSize>>20)
	}
	return image, nil
}

// merge adds the keys of a YAML mapping.
func merge(into map[string]any, b []byte) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	var more map[string]any
	if err := yaml.Unmarshal(b, &more); err != nil {
		return err
	}
	if more == nil {
		return errors.New("it is no mapping")
	}
	for key, value := range more {
		into[key] = value
	}
	return nil
}
