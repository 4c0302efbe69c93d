// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"errors"
	"slices"
)

// housekeeping is the part of an object's metadata that changes with every write and is nobody's wish.
var housekeeping = []string{"managedFields", "resourceVersion", "generation", "selfLink"}

// changedFields names the parts that differ between two stored objects, in order: top-level fields, and the fields of
// metadata and status one by one. It is nil where one of them is no JSON object, for instance because it is encrypted, and
// empty where only housekeeping differs.
//
// It compares bytes, which is right as stored objects have one spelling, and reads no deeper than it must: this runs for
// each write, where all others wait.
func changedFields(before, after []byte) []string {
	fields := []string{}
	var inner error
	err := differ(before, after, func(name string, old, new []byte) {
		if name != "metadata" && name != "status" {
			fields = append(fields, name)
			return
		}
		failed := differ(orEmpty(old), orEmpty(new), func(part string, _, _ []byte) {
			if name == "status" || !slices.Contains(housekeeping, part) {
				fields = append(fields, name+"."+part)
			}
		})
		if failed != nil {
			inner = failed
		}
	})
	if err != nil || inner != nil {
		return nil
	}
	slices.Sort(fields)
	return fields
}

func orEmpty(object []byte) []byte {
	if object == nil {
		return []byte("{}")
	}
	return object
}

// differ calls each for the members of two JSON objects that are not in both with the same bytes.
func differ(before, after []byte, each func(name string, old, new []byte)) error {
	old := map[string][]byte{}
	if err := members(before, func(name string, value []byte) { old[name] = value }); err != nil {
		return err
	}
	err := members(after, func(name string, value []byte) {
		was, there := old[name]
		delete(old, name)
		if !there || !bytes.Equal(was, value) {
			each(name, was, value)
		}
	})
	if err != nil {
		return err
	}
	for name, was := range old {
		each(name, was, nil)
	}
	return nil
}

var errNoObject = errors.New("the value is no JSON object")

// members calls each with the name and the bytes of every member of a JSON object. It trusts what it steps over: the store
// has decoded it, or will refuse to.
func members(data []byte, each func(name string, value []byte)) error {
	data = bytes.TrimSpace(data)
	if len(data) < 2 || data[0] != '{' || data[len(data)-1] != '}' {
		return errNoObject
	}
	for i := 1; ; {
		i = space(data, i)
		if i < len(data) && data[i] == '}' {
			return nil
		}
		start := i
		i = skip(data, i)
		if i < 0 || data[start] != '"' {
			return errNoObject
		}
		name := string(data[start+1 : i-1])
		i = space(data, i)
		if i >= len(data) || data[i] != ':' {
			return errNoObject
		}
		start = space(data, i+1)
		i = skip(data, start)
		if i < 0 {
			return errNoObject
		}
		each(name, data[start:i])
		i = space(data, i)
		if i < len(data) && data[i] == ',' {
			i++
		}
	}
}

func space(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r') {
		i++
	}
	return i
}

// skip answers where the value that begins at i ends, -1 where it does not.
func skip(data []byte, i int) int {
	for depth := 0; i < len(data); {
		switch data[i] {
		case '"':
			for i++; ; i++ {
				end := bytes.IndexByte(data[i:], '"')
				if end < 0 {
					return -1
				}
				i += end
				slashes := 0
				for data[i-1-slashes] == '\\' {
					slashes++
				}
				if slashes%2 == 0 {
					break
				}
			}
			i++
		case '{', '[':
			depth++
			i++
		case '}', ']':
			if depth == 0 {
				return -1
			}
			depth--
			i++
		default: // a number or a word, and what stands between values inside of one
			for i++; i < len(data) && !ends(data[i]); i++ {
			}
		}
		if depth == 0 {
			return i
		}
	}
	return -1
}

// ends tells whether a number or a word ends before this byte.
func ends(b byte) bool {
	switch b {
	case '"', '{', '}', '[', ']', ',', ':', ' ', '\n', '\t', '\r':
		return true
	}
	return false
}

// uidIn reads metadata.uid; empty where there is none to read.
func uidIn(object []byte) (uid string) {
	_ = members(object, func(name string, value []byte) {
		if name != "metadata" {
			return
		}
		_ = members(value, func(name string, value []byte) {
			if name == "uid" && len(value) > 2 {
				uid = string(value[1 : len(value)-1])
			}
		})
	})
	return uid
}
