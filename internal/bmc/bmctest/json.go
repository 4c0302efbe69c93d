// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"encoding/json"
	"io"
	"net/http"
	"path"
	"strings"
)

// object is a JSON object.
type object = map[string]any

var healthy = object{"State": "Enabled", "Health": "OK"}

// link is a reference to a resource.
func link(to string) object { return object{"@odata.id": to} }

// resource adds what every Redfish resource must have: its address, type, Id and Name.
func resource(at, kind, name string, o object) object {
	o["@odata.id"] = at
	o["@odata.type"] = "#" + kind
	o["Name"] = name
	if o["Id"] == nil {
		o["Id"] = path.Base(at)
	}
	return o
}

// collection lists members by their ids.
func collection(at, kind string, ids ...string) object {
	members := make([]object, 0, len(ids))
	for _, id := range ids {
		members = append(members, link(at+"/"+id))
	}
	return object{
		"@odata.id":           at,
		"@odata.type":         "#" + kind + "." + kind,
		"Name":                strings.TrimSuffix(kind, "Collection") + " Collection",
		"Members":             members,
		"Members@odata.count": len(members),
	}
}

func write(w http.ResponseWriter, status int, o object) {
	body, err := json.Marshal(o)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// fail answers with an error of DMTF's Base message registry.
func fail(w http.ResponseWriter, status int, id, message string) {
	write(w, status, object{"error": object{
		"code":    "Base.1.18." + id,
		"message": message,
		"@Message.ExtendedInfo": []object{{
			"@odata.type": "#Message.v1_2_1.Message",
			"MessageId":   "Base.1.18." + id,
			"Message":     message,
			"Severity":    "Critical",
		}},
	}})
}

func missing(w http.ResponseWriter, r *http.Request) {
	fail(w, http.StatusNotFound, "ResourceMissingAtURI", "The resource at the URI '"+r.URL.Path+"' was not found.")
}

// broken is a machine that does not do what the BMC asks of it.
func broken(w http.ResponseWriter, err error) {
	fail(w, http.StatusInternalServerError, "InternalError", "The request failed due to an internal service error: "+err.Error())
}

// decode reads a request's JSON object, and answers 400 where there is none.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "MalformedJSON", "The request body submitted was malformed JSON and could not be parsed by the receiving service.")
		return false
	}
	return true
}

// metadata is the CSDL document: an empty schema is valid, and no client here reads more of it.
func metadata(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?>
<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/ServiceRoot_v1.xml">
    <edmx:Include Namespace="ServiceRoot"/>
    <edmx:Include Namespace="ServiceRoot.v1_16_1"/>
  </edmx:Reference>
  <edmx:DataServices>
    <Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="Service">
      <EntityContainer Name="Service" Extends="ServiceRoot.v1_16_1.ServiceContainer"/>
    </Schema>
  </edmx:DataServices>
</edmx:Edmx>
`)
}
