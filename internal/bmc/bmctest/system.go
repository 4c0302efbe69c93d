// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

var (
	// bootTargets are the allowable values of BootSourceOverrideTarget, unless Options say otherwise.
	bootTargets = []string{"None", "Pxe", "Hdd", "UefiHttp"}
	// bootEnabled are those of BootSourceOverrideEnabled: an override that stays is not offered.
	bootEnabled = []string{"Disabled", "Once"}
	bootModes   = []string{"UEFI", "Legacy"}
	resetTypes  = []string{"On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle"}
)

// boot is what the Boot object says and what a PATCH asks for; nil means not written.
type boot struct {
	Enabled *string `json:"BootSourceOverrideEnabled"`
	Target  *string `json:"BootSourceOverrideTarget"`
	Mode    *string `json:"BootSourceOverrideMode"`
	URI     *string `json:"HttpBootUri"`
}

// system builds ComputerSystem, in the state of now. The caller holds bootMu.
func (b *BMC) system(ctx context.Context) (object, error) {
	powered, err := b.machine.Powered(ctx)
	if err != nil {
		return nil, err
	}
	once, err := b.machine.BootOnce(ctx)
	if err != nil {
		return nil, err
	}
	enabled := "Once"
	if once == "" || once == "None" {
		enabled, once = "Disabled", b.inert
	}
	var uri any
	if h, ok := b.machine.(HTTPBooter); ok {
		if uri, err = h.HTTPBootURI(ctx); err != nil {
			return nil, err
		}
	}
	state := "Off"
	if powered {
		state = "On"
	}
	for _, f := range effects(ctx) {
		if f.PowerState != "" {
			state = f.PowerState
		}
	}
	override := object{
		"BootSourceOverrideEnabled":                         enabled,
		"BootSourceOverrideEnabled@Redfish.AllowableValues": bootEnabled,
		"BootSourceOverrideTarget":                          once,
		"BootSourceOverrideMode":                            b.mode,
		"BootSourceOverrideMode@Redfish.AllowableValues":    bootModes,
		"HttpBootUri": uri,
	}
	if !b.options.UnlistedBootTargets {
		override["BootSourceOverrideTarget@Redfish.AllowableValues"] = b.options.BootTargets
	}
	d := b.machine.Description()
	return resource(pathSystem, "ComputerSystem.v1_22_0.ComputerSystem", "System", object{
		"SystemType":         "Physical",
		"Manufacturer":       d.Manufacturer,
		"Model":              d.Model,
		"SerialNumber":       d.SerialNumber,
		"UUID":               d.UUID,
		"BiosVersion":        d.BIOSVersion,
		"PowerState":         state,
		"Status":             healthy,
		"Boot":               override,
		"ProcessorSummary":   object{"Count": d.Processors, "Status": healthy},
		"MemorySummary":      object{"TotalSystemMemoryGiB": float64(d.MemoryMiB) / 1024, "Status": healthy},
		"Processors":         link(pathSystem + "/Processors"),
		"Memory":             link(pathSystem + "/Memory"),
		"Storage":            link(pathSystem + "/Storage"),
		"EthernetInterfaces": link(pathSystem + "/EthernetInterfaces"),
		"NetworkInterfaces":  link(pathSystem + "/NetworkInterfaces"),
		"Bios":               link(pathSystem + "/Bios"),
		"Links": object{
			"Chassis":   []object{link(pathChassis)},
			"ManagedBy": []object{link(pathManager)},
		},
		"Actions": object{"#ComputerSystem.Reset": object{
			"target":                            pathSystem + "/Actions/ComputerSystem.Reset",
			"ResetType@Redfish.AllowableValues": resetTypes,
		}},
	}), nil
}

func etag(o object) string {
	body, _ := json.Marshal(o) // only strings, numbers and maps of them: it cannot fail
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}

func (b *BMC) getSystem(w http.ResponseWriter, r *http.Request) {
	b.bootMu.Lock()
	defer b.bootMu.Unlock()
	b.answerSystem(w, r)
}

func (b *BMC) answerSystem(w http.ResponseWriter, r *http.Request) {
	o, err := b.system(r.Context())
	if err != nil {
		broken(w, err)
		return
	}
	tag := etag(o)
	o["@odata.etag"] = tag
	w.Header().Set("ETag", tag)
	write(w, http.StatusOK, o)
}

// patchSystem changes the boot override, the one thing of a system that can be written here.
func (b *BMC) patchSystem(w http.ResponseWriter, r *http.Request) {
	b.bootMu.Lock()
	defer b.bootMu.Unlock()
	o, err := b.system(r.Context())
	if err != nil {
		broken(w, err)
		return
	}
	if !b.matches(w, r, etag(o)) {
		return
	}
	var body map[string]json.RawMessage
	if !decode(w, r, &body) {
		return
	}
	for name := range body {
		if name != "Boot" {
			fail(w, http.StatusBadRequest, "PropertyNotWritable", "The property "+name+" is a read only property and cannot be assigned a value.")
			return
		}
	}
	var want boot
	if err := json.Unmarshal(body["Boot"], &want); err != nil {
		fail(w, http.StatusBadRequest, "MalformedJSON", "The request body submitted was malformed JSON.")
		return
	}
	b.setBoot(w, r, want)
}

// matches applies the header If-Match in this BMC's own way.
func (b *BMC) matches(w http.ResponseWriter, r *http.Request, tag string) bool {
	sent := r.Header.Get("If-Match")
	switch {
	case sent == "" && b.options.IfMatch == IfMatchRequired:
		fail(w, http.StatusPreconditionRequired, "PreconditionRequired", "A precondition header or annotation is required to change this resource.")
		return false
	case sent == "":
		return true
	case b.options.IfMatch == IfMatchRefused, sent != "*" && sent != tag:
		fail(w, http.StatusPreconditionFailed, "PreconditionFailed", "The ETag supplied did not match the ETag required to change this resource.")
		return false
	}
	return true
}

// setBoot lays the request over what is set. The caller holds bootMu.
func (b *BMC) setBoot(w http.ResponseWriter, r *http.Request, want boot) {
	for _, v := range []struct {
		name    string
		value   *string
		allowed []string
	}{
		{"BootSourceOverrideEnabled", want.Enabled, bootEnabled},
		{"BootSourceOverrideTarget", want.Target, b.options.BootTargets},
		{"BootSourceOverrideMode", want.Mode, bootModes},
	} {
		if v.value != nil && !slices.Contains(v.allowed, *v.value) {
			fail(w, http.StatusBadRequest, "PropertyValueNotInList",
				"The value '"+*v.value+"' for the property "+v.name+" is not in the list of acceptable values ("+strings.Join(v.allowed, ", ")+").")
			return
		}
	}
	uri, takesURI := b.machine.(HTTPBooter)
	if want.URI != nil && !takesURI {
		fail(w, http.StatusBadRequest, "PropertyNotWritable", "The property HttpBootUri is a read only property and cannot be assigned a value.")
		return
	}
	if !effect(r.Context(), func(f Rule) bool { return f.ForgetBoot }) {
		if want.URI != nil {
			if err := uri.SetHTTPBootURI(r.Context(), *want.URI); err != nil {
				broken(w, err)
				return
			}
		}
		if err := b.keepBoot(r.Context(), want); err != nil {
			broken(w, err)
			return
		}
	}
	b.answerSystem(w, r)
}

func (b *BMC) keepBoot(ctx context.Context, want boot) error {
	once, err := b.machine.BootOnce(ctx)
	if err != nil {
		return err
	}
	enabled, target := "Once", once
	if once == "" || once == "None" {
		enabled, target = "Disabled", b.inert
	}
	if want.Enabled != nil {
		enabled = *want.Enabled
	}
	if want.Target != nil {
		target = *want.Target
	}
	if want.Mode != nil {
		b.mode = *want.Mode
	}
	b.inert = "None"
	if enabled == "Disabled" {
		// The schema keeps the target of a disabled override; it has no effect until it is enabled.
		b.inert, target = target, "None"
	}
	return b.machine.SetBootOnce(ctx, target)
}

// reset is the action ComputerSystem.Reset.
func (b *BMC) reset(w http.ResponseWriter, r *http.Request) {
	var body struct{ ResetType string }
	if !decode(w, r, &body) {
		return
	}
	if !slices.Contains(resetTypes, body.ResetType) {
		fail(w, http.StatusBadRequest, "ActionParameterValueNotInList", "The value '"+body.ResetType+
			"' for the parameter ResetType in the action ComputerSystem.Reset is not in the list of acceptable values ("+strings.Join(resetTypes, ", ")+").")
		return
	}
	if effect(r.Context(), func(f Rule) bool { return f.ForgetReset }) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	b.bootMu.Lock()
	defer b.bootMu.Unlock()
	powered, err := b.machine.Powered(r.Context())
	if err != nil {
		broken(w, err)
		return
	}
	// A reset of a machine that is already there is refused, as widespread firmware does: clients must look first.
	if powered == (body.ResetType == "On") {
		fail(w, http.StatusConflict, "OperationNotAllowed", "The HTTP method is not allowed on this resource in its present power state.")
		return
	}
	if err := b.switchPower(r.Context(), body.ResetType); err != nil {
		broken(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (b *BMC) switchPower(ctx context.Context, how string) error {
	switch how {
	case "On":
		return b.machine.PowerOn(ctx)
	case "ForceOff":
		return b.machine.PowerOff(ctx)
	case "GracefulShutdown":
		return b.machine.Shutdown(ctx)
	case "PowerCycle":
		if err := b.machine.PowerOff(ctx); err != nil {
			return err
		}
		return b.machine.PowerOn(ctx)
	}
	return b.machine.Reset(ctx) // ForceRestart
}
