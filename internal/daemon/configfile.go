// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// lines finds the line of a key by its path, as "dhcp.interfaces[0].server".
type lines map[string]int

// at is the line of a key, or of the nearest key above it that the file does hold.
func (l lines) at(path string) int {
	for path != "" {
		if line, ok := l[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 1
}

// decodeStrictly fills into from one YAML document. Unlike a plain decoder it names each unknown and each repeated key with its
// line, and tells where every key stood, so that later checks can point there too.
func decodeStrictly(file string, data []byte, into any) (lines, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: the file is empty: want apiVersion: %s", file, ConfigVersion)
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document in the file", file)
	}
	w := walk{file: file, lines: lines{}}
	w.node(doc.Content[0], reflect.TypeOf(into).Elem(), "")
	if len(w.problems) > 0 {
		return nil, errors.Join(w.problems...)
	}
	if err := doc.Decode(into); err != nil {
		return nil, w.explain(err)
	}
	return w.lines, nil
}

type walk struct {
	file     string
	lines    lines
	problems []error
}

func (w *walk) problem(line int, format string, args ...any) {
	w.problems = append(w.problems, fmt.Errorf("%s:%d: "+format, append([]any{w.file, line}, args...)...))
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// node compares the shape of the file with the shape of the type.
func (w *walk) node(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind == yaml.AliasNode {
		w.problem(n.Line, "%s: anchors and aliases are not read here: write the value out", path)
		return
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		if n.Kind != yaml.ScalarNode {
			w.problem(n.Line, "%s: want one value", path)
			return
		}
		value := reflect.New(t).Interface().(encoding.TextUnmarshaler)
		if err := value.UnmarshalText([]byte(n.Value)); err != nil && n.Tag != "!!null" {
			w.problem(n.Line, "%s: %v", path, err)
		}
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		w.mapping(n, t, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			if n.Tag != "!!null" {
				w.problem(n.Line, "%s: want a list", path)
			}
			return
		}
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			w.lines[at] = item.Line
			w.node(item, t.Elem(), at)
		}
	default:
		if n.Kind != yaml.ScalarNode {
			w.problem(n.Line, "%s: want one value", path)
			return
		}
		// The decoder would cut 1.5 to a whole number.
		broken := t.Kind() == reflect.Int && n.ShortTag() != "!!int"
		if err := n.Decode(reflect.New(t).Interface()); err != nil || broken {
			w.problem(n.Line, "%s: %q is not a %s", path, n.Value, t)
		}
	}
}

func (w *walk) mapping(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.MappingNode {
		if n.Tag != "!!null" || path == "" {
			w.problem(n.Line, "%s: want keys and values", strings.TrimPrefix(path, "."))
		}
		return
	}
	fields := map[string]reflect.Type{}
	var known []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		fields[name] = t.Field(i).Type
		known = append(known, name)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		field, ok := fields[key.Value]
		if !ok {
			w.problem(key.Line, "unknown key %q%s", at, suggest(key.Value, known))
			continue
		}
		if first, again := w.lines[at]; again {
			w.problem(key.Line, "key %q is given twice, first in line %d", at, first)
			continue
		}
		w.lines[at] = key.Line
		w.node(value, field, at)
	}
}

// explain puts the file's name before each of the decoder's own complaints.
func (w *walk) explain(err error) error {
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return fmt.Errorf("%s: %w", w.file, err)
	}
	var all []error
	for _, text := range typed.Errors {
		all = append(all, fmt.Errorf("%s: %s", w.file, text))
	}
	return errors.Join(all...)
}

// suggest names the known key that a wrong one most likely meant, or else all of them.
func suggest(wrong string, known []string) string {
	nearest, least := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(wrong), strings.ToLower(k)); d < least {
			nearest, least = k, d
		}
	}
	if nearest != "" {
		return fmt.Sprintf(": did you mean %q?", nearest)
	}
	known = slices.Sorted(slices.Values(known))
	return ": known here are " + strings.Join(known, ", ")
}

// distance counts the single letters to insert, drop or change between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
