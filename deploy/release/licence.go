// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// library is one Go module that a program is linked of, Go's standard library included.
type library struct {
	path, version string
	// dir is its source in the module cache.
	dir string
	// licences are SPDX identifiers, sorted.
	licences []string
	// texts are its licence files, relative to dir; notices are those of them that Apache-2.0 asks to pass on.
	texts, notices []string
	// users are the programs that link it.
	users []string
}

// standard is what Go's standard library is called in bills of material.
const standard = "std"

// libraries reads from the programs themselves what they are linked of.
func libraries(ctx context.Context, programs ...string) ([]*library, error) {
	cache, err := output(exec.CommandContext(ctx, "go", "env", "GOMODCACHE"))
	if err != nil {
		return nil, fmt.Errorf("finding the module cache: %w", err)
	}
	goroot, err := output(exec.CommandContext(ctx, "go", "env", "GOROOT"))
	if err != nil {
		return nil, fmt.Errorf("finding Go: %w", err)
	}
	all := map[string]*library{}
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return nil, fmt.Errorf("reading what %s is built of: %w", filepath.Base(program), err)
		}
		found := []*library{{path: standard, version: strings.TrimPrefix(info.GoVersion, "go"), dir: goroot}}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			found = append(found, &library{path: m.Path, version: m.Version, dir: filepath.Join(cache, escapePath(m.Path)+"@"+escapePath(m.Version))})
		}
		for _, l := range found {
			if have, ok := all[l.path]; ok && have.version == l.version {
				l = have
			} else if ok {
				return nil, fmt.Errorf("reading what the programs are built of: %s in versions %s and %s", l.path, have.version, l.version)
			}
			all[l.path] = l
			l.users = append(l.users, filepath.Base(program))
		}
	}
	var list []*library
	var errs []error
	for _, l := range all {
		errs = append(errs, l.findLicences())
		slices.Sort(l.users)
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b *library) int { return strings.Compare(a.path, b.path) })
	return list, errors.Join(errs...)
}

// escapePath is how the module cache writes a path for file systems without case (Go Modules Reference, "Module cache").
func escapePath(path string) string {
	var out strings.Builder
	for _, c := range path {
		if unicode.IsUpper(c) {
			out.WriteByte('!')
		}
		out.WriteRune(unicode.ToLower(c))
	}
	return out.String()
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]es?|copying|notice|patents|unlicense)([.-].*)?$`)

// findLicences finds the texts that a module asks to be passed on. A licence that is not known by its words is an error: a
// person must read it.
func (l *library) findLicences() error {
	err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		short, err := filepath.Rel(l.dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			skip := slices.Contains([]string{"testdata", "vendor", "_examples", "examples", "docs", "hack"}, d.Name()) || strings.HasPrefix(d.Name(), ".")
			// Of Go itself only the library is linked, under the one licence at its top.
			if short != "." && (skip || l.path == standard) {
				return filepath.SkipDir
			}
			return nil
		}
		if !licenceFile.MatchString(d.Name()) || filepath.Ext(path) == ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.ToLower(d.Name())
		switch {
		case strings.HasPrefix(name, "notice"):
			l.notices = append(l.notices, short)
		case strings.HasPrefix(name, "patents"):
		default:
			ids := spdx(string(text))
			if len(ids) == 0 {
				return fmt.Errorf("%s/%s: no licence that is known here", l.path, short)
			}
			if slices.Contains(ids, "GPL") || slices.Contains(ids, "LGPL") {
				return fmt.Errorf("%s/%s: %s: a static program under Apache-2.0 cannot link it", l.path, short, strings.Join(ids, ", "))
			}
			l.licences = append(l.licences, ids...)
		}
		l.texts = append(l.texts, short)
		return nil
	})
	if err != nil {
		return fmt.Errorf("finding the licence of %s: %w", l.path, err)
	}
	if len(l.licences) == 0 {
		return fmt.Errorf("finding the licence of %s: it has no file that says so", l.path)
	}
	slices.Sort(l.licences)
	l.licences = slices.Compact(l.licences)
	return nil
}

// licenceWords are what each licence says and no other does, in its own words with blanks evened out.
var licenceWords = []struct{ id, words, without string }{
	{"Apache-2.0", "Apache License Version 2.0", ""},
	{"Apache-2.0", "Licensed under the Apache License, Version 2.0", ""},
	{"MPL-2.0", "Mozilla Public License Version 2.0", ""},
	{"MPL-2.0", "Mozilla Public License, version 2.0", ""},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation", ""},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, provided", ""},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose with or without fee is hereby granted, provided", ""},
	{"BSD-3-Clause", "to endorse or promote products derived from this software without specific prior written permission", ""},
	{"BSD-2-Clause", "Redistribution and use in source and binary forms, with or without modification, are permitted provided", "endorse or promote"},
	{"Unlicense", "This is free and unencumbered software released into the public domain", ""},
	{"CC0-1.0", "CC0 1.0 Universal", ""},
	{"CC-BY-4.0", "Creative Commons Attribution 4.0", ""},
	{"GPL", "GNU General Public License", "Mozilla Public License"},
	{"LGPL", "GNU Lesser General Public License", "Mozilla Public License"},
}

// spdx names the licences whose words a text has. GPL and LGPL name no version: findLicences refuses to link anything under
// them.
func spdx(text string) []string {
	text = evenOut(text)
	var ids []string
	for _, l := range licenceWords {
		words, without := evenOut(l.words), evenOut(l.without)
		if strings.Contains(text, words) && (without == "" || !strings.Contains(text, without)) && !slices.Contains(ids, l.id) {
			ids = append(ids, l.id)
		}
	}
	return ids
}

// evenOut takes from a text what comments and line ends make of it.
func evenOut(text string) string {
	return strings.ToLower(strings.Join(strings.FieldsFunc(text, func(c rune) bool {
		return unicode.IsSpace(c) || c == '*' || c == '#' || c == '/'
	}), " "))
}
