// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// rule reads "verbs groups resources [names]", or "verbs /path"; lists have commas, "-" is the group of core/v1.
func rule(text string) rbacv1.PolicyRule {
	words := strings.Fields(text)
	list := func(word string) []string { return strings.Split(strings.ReplaceAll(word, "-", ""), ",") }
	if len(words) == 2 {
		return rbacv1.PolicyRule{Verbs: list(words[0]), NonResourceURLs: strings.Split(words[1], ",")}
	}
	r := rbacv1.PolicyRule{Verbs: list(words[0]), APIGroups: list(words[1]), Resources: list(words[2])}
	if len(words) > 3 {
		r.ResourceNames = strings.Split(words[3], ",")
	}
	return r
}

func TestAllows(t *testing.T) {
	read := func(resource, sub, name string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{ResourceRequest: true, Verb: "get", APIGroup: "metal3.io", Resource: resource, Subresource: sub, Name: name}
	}
	path := func(path string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{Verb: "get", Path: path}
	}
	for name, test := range map[string]struct {
		rule    string
		request authorizer.AttributesRecord
		want    bool
	}{
		"the very thing":                {"get metal3.io baremetalhosts", read("baremetalhosts", "", "a"), true},
		"everything":                    {"* * *", read("baremetalhosts", "", "a"), true},
		"another verb":                  {"list,watch metal3.io baremetalhosts", read("baremetalhosts", "", "a"), false},
		"another group":                 {"get metald.io baremetalhosts", read("baremetalhosts", "", "a"), false},
		"the core group":                {"get - baremetalhosts", read("baremetalhosts", "", "a"), false},
		"another resource":              {"get metal3.io hostclaims", read("baremetalhosts", "", "a"), false},
		"no subresource with it":        {"get metal3.io baremetalhosts", read("baremetalhosts", "status", "a"), false},
		"the subresource":               {"get metal3.io baremetalhosts/status", read("baremetalhosts", "status", "a"), true},
		"a subresource is not its host": {"get metal3.io baremetalhosts/status", read("baremetalhosts", "", "a"), false},
		"that subresource of anything":  {"get metal3.io */status", read("baremetalhosts", "status", "a"), true},
		"another one of anything":       {"get metal3.io */scale", read("baremetalhosts", "status", "a"), false},
		"of anything, not anything":     {"get metal3.io */status", read("baremetalhosts", "", "a"), false},
		"a star holds subresources":     {"get metal3.io *", read("baremetalhosts", "status", "a"), true},
		"a half star is no pattern":     {"get metal3.io bare*", read("baremetalhosts", "", "a"), false},
		"its name":                      {"get metal3.io baremetalhosts a,b", read("baremetalhosts", "", "b"), true},
		"another name":                  {"get metal3.io baremetalhosts a,b", read("baremetalhosts", "", "c"), false},
		"no name where names are given": {"get metal3.io baremetalhosts a", read("baremetalhosts", "", ""), false},
		"a star among names is a name":  {"get metal3.io baremetalhosts *", read("baremetalhosts", "", "a"), false},
		"the path":                      {"get /metrics", path("/metrics"), true},
		"a longer path":                 {"get /metrics", path("/metrics/slow"), false},
		"below the path":                {"get /apis/*", path("/apis/metal3.io"), true},
		"the path before the star":      {"get /apis/*", path("/apis"), false},
		"every path":                    {"get *", path("/metrics"), true},
		"every resource, no path":       {"* * *", path("/metrics"), false},
		"every path, no resource":       {"* *", read("baremetalhosts", "", "a"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := allows(rule(test.rule), test.request); got != test.want {
				t.Errorf("%q: got %t, want %t", test.rule, got, test.want)
			}
		})
	}
}

func TestLacking(t *testing.T) {
	for name, test := range map[string]struct {
		has, wanted []string
		want        []string
	}{
		"the same":                 {[]string{"get,list - secrets"}, []string{"get,list - secrets"}, nil},
		"of two rules":             {[]string{"get - secrets", "list - secrets"}, []string{"get,list - secrets"}, nil},
		"of a star":                {[]string{"* * *"}, []string{"get,escalate metal3.io,- baremetalhosts/status a"}, nil},
		"one verb more":            {[]string{"get - secrets"}, []string{"get,list - secrets"}, []string{"list secrets"}},
		"a star from each verb":    {[]string{"get,list,watch,create,update,patch,delete - secrets"}, []string{"* - secrets"}, []string{"* secrets"}},
		"all names of some":        {[]string{"get - secrets a,b"}, []string{"get - secrets"}, []string{"get secrets"}},
		"some names of all":        {[]string{"get - secrets"}, []string{"get - secrets a"}, nil},
		"another name":             {[]string{"get - secrets a"}, []string{"get - secrets a,b"}, []string{"get secrets named b"}},
		"subresource of resource":  {[]string{"get metal3.io hosts"}, []string{"get metal3.io hosts/status"}, []string{"get hosts/status.metal3.io"}},
		"of that of anything":      {[]string{"get metal3.io */status"}, []string{"get metal3.io hosts/status"}, nil},
		"that of anything of one":  {[]string{"get metal3.io hosts/status"}, []string{"get metal3.io */status"}, []string{"get */status.metal3.io"}},
		"a path":                   {[]string{"get /apis/*"}, []string{"get /apis/a,/apis/b/*"}, nil},
		"a wider path":             {[]string{"get /apis/*"}, []string{"get /*"}, []string{"get /*"}},
		"paths are not resources":  {[]string{"* *"}, []string{"get - secrets"}, []string{"get secrets"}},
		"nothing of a lot":         {nil, []string{"get - secrets,configmaps"}, []string{"get secrets", "get configmaps"}},
		"nothing is never missing": {nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var has, wanted []rbacv1.PolicyRule
			for _, text := range test.has {
				has = append(has, rule(text))
			}
			for _, text := range test.wanted {
				wanted = append(wanted, rule(text))
			}
			var got []string
			for _, missing := range lacking(has, wanted) {
				got = append(got, words(missing))
			}
			if strings.Join(got, "; ") != strings.Join(test.want, "; ") {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
