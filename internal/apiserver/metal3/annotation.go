// SPDX-License-Identifier: Apache-2.0

package metal3

import (
	"encoding/json"
	"slices"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// inspectDisabled is what the annotation inspect.metal3.io says where the field inspectionMode would say the same.
const inspectDisabled = "disabled"

func checkInspection(is, _ *host) field.ErrorList {
	annotation, mode := is.Annotations[metal3.InspectAnnotationPrefix], is.Spec.InspectionMode
	if annotation == "" || mode == "" || (annotation == inspectDisabled) == (mode == metal3.InspectionModeDisabled) {
		return nil
	}
	return field.ErrorList{field.Invalid(specPath.Child("inspectionMode"), mode, "contradicts the annotation inspect.metal3.io: "+annotation)}
}

// checkAnnotations reads the annotations that stand for an order or for a fact. Keys are sorted, so that a refusal reads the
// same each time.
func checkAnnotations(is, _ *host) (errs field.ErrorList) {
	for _, key := range sortedKeys(is.Annotations) {
		path, text := metaPath.Child("annotations").Key(key), is.Annotations[key]
		switch {
		case key == metal3.StatusAnnotation:
			errs = append(errs, checkStatus(path, text)...)
		case isReboot(key):
			errs = append(errs, checkReboot(path, text)...)
		case key == metal3.InspectAnnotationPrefix:
			if allowed := []string{inspectDisabled, ""}; !slices.Contains(allowed, text) {
				errs = append(errs, field.NotSupported(path, text, allowed))
			}
		case key == metal3.HardwareDetailsAnnotation && text != "":
			if !is.InspectionDisabled() {
				errs = append(errs, field.Forbidden(path, "can only be given where inspection is disabled, by inspectionMode or the annotation inspect.metal3.io"))
				continue
			}
			if err := strict(text, &metal3.HardwareDetails{}); err != nil {
				errs = append(errs, field.Invalid(path, field.OmitValueType{}, "is not hardware details: "+err.Error()))
			}
		}
	}
	return errs
}

// checkStatus reads a status that a move of the host carries along.
func checkStatus(path *field.Path, text string) field.ErrorList {
	if text == "" {
		return nil
	}
	var status metal3.BareMetalHostStatus
	if err := strict(text, &status); err != nil {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "is not a host's status: "+err.Error())}
	}
	// The two that Metal3's own lists have left out are states that a host can be in.
	states := append(slices.Clone(metal3.OperationalStatusAllowed), string(metal3.OperationalStatusServicing))
	types := append(slices.Clone(metal3.ErrorTypeAllowed), string(metal3.DetachError), string(metal3.ServicingError))
	var errs field.ErrorList
	if !slices.Contains(states, string(status.OperationalStatus)) {
		errs = append(errs, field.NotSupported(path.Child("operationalStatus"), string(status.OperationalStatus), states))
	}
	if !slices.Contains(types, string(status.ErrorType)) {
		errs = append(errs, field.NotSupported(path.Child("errorType"), string(status.ErrorType), types))
	}
	return errs
}

// strict reads JSON of a type; what the type does not know is an error, and so is what comes after it.
func strict(text string, into any) error {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func isReboot(key string) bool {
	return key == metal3.RebootAnnotationPrefix || strings.HasPrefix(key, metal3.RebootAnnotationPrefix+"/")
}

func checkReboot(path *field.Path, text string) field.ErrorList {
	if text == "" {
		return nil
	}
	var order metal3.RebootAnnotationArguments
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return field.ErrorList{field.Invalid(path, text, `is not JSON as {"mode":"soft","force":false}: `+err.Error())}
	}
	if modes := []metal3.RebootMode{metal3.RebootModeHard, metal3.RebootModeSoft, ""}; !slices.Contains(modes, order.Mode) {
		return field.ErrorList{field.NotSupported(path.Child("mode"), order.Mode, modes)}
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
