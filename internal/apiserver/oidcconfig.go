// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	api "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
)

// reservedNames begin the names of users and groups that the API or metald gives a meaning to: system:masters may do
// everything, metald:operators has a ready role, metald:root is who comes by the local socket. No token makes one.
var reservedNames = []string{"system:", "metald:"}

// authenticationCodecs read the library's own configuration kinds; what they do not know is an error.
var authenticationCodecs = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
}()

// parseAuthentication reads and checks an AuthenticationConfiguration. An error has a line for each thing that is wrong, with
// the file's name, the line in it and the field.
func parseAuthentication(name string, text []byte, compiler authenticationcel.Compiler) (*api.AuthenticationConfiguration, error) {
	document, err := oneDocument(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	object, err := runtime.Decode(authenticationCodecs.UniversalDecoder(), text)
	if err != nil {
		return nil, explainDecoding(name, document, err)
	}
	config, ok := object.(*api.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("%s:%d: kind: %T is not what is read here: want AuthenticationConfiguration", name, lineOf(document, "kind"), object)
	}
	problems := append(validation.ValidateAuthenticationConfiguration(compiler, config, nil), refuseUnsafe(config)...)
	var all []error
	for _, problem := range problems {
		all = append(all, fmt.Errorf("%s:%d: %w", name, lineOf(document, problem.Field), problem))
	}
	return config, errors.Join(all...)
}

// oneDocument reads the shape of a file. The decoder of kinds would pass over everything behind the first document.
func oneDocument(text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty: want apiVersion: apiserver.config.k8s.io/v1, kind: AuthenticationConfiguration")
		}
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document in the file")
	}
	return &document, nil
}

// quoted is how the decoder names a field that it does not know or has seen before.
var quoted = regexp.MustCompile(`"([^"]+)"`)

func explainDecoding(name string, document *yaml.Node, err error) error {
	strict, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		return fmt.Errorf("%s: %w", name, err)
	}
	var all []error
	for _, problem := range strict.Errors() {
		line := 1
		if found := quoted.FindStringSubmatch(problem.Error()); found != nil {
			line = lineOf(document, found[1])
		}
		all = append(all, fmt.Errorf("%s:%d: %w", name, line, problem))
	}
	return errors.Join(all...)
}

// refuseUnsafe is what the library lets pass and this door does not.
func refuseUnsafe(config *api.AuthenticationConfiguration) (problems field.ErrorList) {
	if config.Anonymous != nil && config.Anonymous.Enabled {
		problems = append(problems, field.Invalid(field.NewPath("anonymous", "enabled"), true, "nobody is anonymous here"))
	}
	for i, issuer := range config.JWT {
		at := field.NewPath("jwt").Index(i)
		if issuer.Issuer.EgressSelectorType != "" {
			problems = append(problems, field.Forbidden(at.Child("issuer", "egressSelectorType"), "there is no egress selector here"))
		}
		mappings := at.Child("claimMappings")
		problems = append(problems, refuseMapping(mappings.Child("username"), issuer.ClaimMappings.Username)...)
		problems = append(problems, refuseMapping(mappings.Child("groups"), issuer.ClaimMappings.Groups)...)
	}
	return problems
}

// refuseMapping asks each mapping for a prefix of its own: without one, whoever chooses names at the issuer could choose those
// of somebody who has a certificate, and a short one could be made longer by a claim.
func refuseMapping(at *field.Path, mapping api.PrefixedClaimOrExpression) (problems field.ErrorList) {
	if mapping.Expression != "" && !strings.ContainsAny(mapping.Expression, `'"`) {
		problems = append(problems, field.Invalid(at.Child("expression"), mapping.Expression,
			"it adds no prefix, so that an issuer could name whom it likes: put one before it, as 'oidc:' + "+mapping.Expression))
	}
	if mapping.Claim == "" || mapping.Prefix == nil {
		return problems // the library asks for what is missing
	}
	prefix := *mapping.Prefix
	if prefix == "" {
		return append(problems, field.Required(at.Child("prefix"), "without one an issuer could name whom it likes: want something like oidc:"))
	}
	for _, reserved := range reservedNames {
		if strings.HasPrefix(prefix, reserved) || strings.HasPrefix(reserved, prefix) {
			problems = append(problems, field.Invalid(at.Child("prefix"), prefix, "names that begin with "+reserved+" have a meaning of their own and come from no issuer"))
		}
	}
	return problems
}

// lineOf is the line of a field, as jwt[0].issuer.url, or of the nearest one above it that is in the file.
func lineOf(document *yaml.Node, path string) int {
	node := document
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	line := max(node.Line, 1)
	for word := range strings.FieldsFuncSeq(path, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
		at, next := step(node, word)
		if next == nil {
			break
		}
		line, node = at, next
	}
	return line
}

// step goes one field or one index down, and tells the line at which it stands.
func step(node *yaml.Node, word string) (int, *yaml.Node) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == word {
				return node.Content[i].Line, node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		for i, item := range node.Content {
			if fmt.Sprint(i) == word {
				return item.Line, item
			}
		}
	}
	return 0, nil
}
