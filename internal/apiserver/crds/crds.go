// SPDX-License-Identifier: Apache-2.0

// Package crds holds the CustomResourceDefinitions that metald serves: Metal3's, made from the Go types of the
// baremetal-operator's apis module at the version in go.mod, and metald's own, made from api/v1alpha1. The YAML beside
// this file is generated and never edited by hand; `go generate` makes it anew after a change of either. It knows nothing
// of the server that serves them. Start reading at All.
package crds

import (
	"embed"
	"fmt"
	"io/fs"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// HardwareData has a clock speed in a float, which the generator would refuse in a type of one's own.
//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.20.0 crd:allowDangerousTypes=true paths=github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1 output:crd:dir=.
//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.20.0 crd paths=metald.io/metald/api/v1alpha1 output:crd:dir=.

//go:embed *.yaml
var files embed.FS

// File is one definition: its name and its text, YAML.
type File struct {
	Name string
	YAML []byte
}

// All returns the definitions in the order of their file names.
func All() ([]File, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("listing the embedded definitions: %w", err)
	}
	all := make([]File, 0, len(names))
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading an embedded definition: %w", err)
		}
		all = append(all, File{Name: name, YAML: text})
	}
	return all, nil
}

// Parse reads the definition. An unknown field is an error.
func (f File) Parse() (*apiextensionsv1.CustomResourceDefinition, error) {
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(f.YAML, &definition); err != nil {
		return nil, fmt.Errorf("parsing definition %s: %w", f.Name, err)
	}
	return &definition, nil
}
