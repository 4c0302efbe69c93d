// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// component is one of a CycloneDX bill of materials (ECMA-424, version 1.6).
type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	Scope      string     `json:"scope,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Licences   []licence  `json:"licenses,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	References []external `json:"externalReferences,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type licence struct {
	Licence licenceID `json:"license"`
}

type licenceID struct {
	ID string `json:"id"`
}

type external struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

type bill struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

// programs are ours; what they are linked of is read from them.
var programs = []string{"usr/bin/metald", "usr/bin/metald-agent"}

// debianLicences are those of what is taken from Debian, by source package.
var debianLicences = map[string]string{"linux": "GPL-2.0-only", "systemd": "LGPL-2.1-or-later", "ipxe": "GPL-2.0-or-later"}

// bill writes what the release is made of, and under which licences: sbom.cdx.json, NOTICE, copyright and the texts.
func (r *release) bill(ctx context.Context, arch, root string, parts []debianPackage) error {
	libraries, err := libraries(ctx, filepath.Join(root, programs[0]), filepath.Join(root, programs[1]))
	if err != nil {
		return err
	}
	for _, l := range libraries {
		for _, text := range l.texts {
			if err := copyAll(filepath.Join(root, docs, "licences", l.path+"@"+l.version, text), filepath.Join(l.dir, text)); err != nil {
				return err
			}
		}
	}
	for _, p := range parts {
		from := filepath.Join(p.root, "usr/share/doc", p.name, "copyright")
		if err := copyAll(filepath.Join(root, docs, "licences/debian", p.name+"_"+p.version), from); err != nil {
			return err
		}
	}
	sbom, err := r.sbom(arch, root, libraries, parts)
	if err != nil {
		return err
	}
	notice, err := noticeText(libraries, parts)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"sbom.cdx.json": sbom, "NOTICE": []byte(notice), "copyright": []byte(copyrightText)} {
		if err := writeFile(filepath.Join(root, docs, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sbom describes the release; its only time is the commit's and it has no serial number, so that it is the same each time.
func (r *release) sbom(arch, root string, libraries []*library, parts []debianPackage) ([]byte, error) {
	b := bill{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{
		Timestamp: r.built.Format(time.RFC3339),
		Component: component{Type: "application", Ref: "metald", Name: "metald", Version: r.version, Licences: licenceIDs("Apache-2.0")},
	}}
	uses := map[string][]string{}
	boot := []string{ramdiskFile}
	if len(parts) > loaderPart {
		boot = append(boot, loaderFile)
	}
	for _, file := range append(programs[:len(programs):len(programs)], boot...) {
		data, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return nil, fmt.Errorf("reading what the release is made of: %w", err)
		}
		kind, licences := "application", licenceIDs("Apache-2.0")
		if strings.HasSuffix(file, ".efi") {
			kind, licences = "firmware", nil // of what it is made of
		}
		b.Components = append(b.Components, component{Type: kind, Ref: file, Name: file, Version: r.version,
			Hashes: []hash{{"SHA-256", digest(data)}}, Licences: licences})
		uses["metald"] = append(uses["metald"], file)
	}
	for _, l := range libraries {
		purl := fmt.Sprintf("pkg:golang/%s@%s", l.path, strings.ReplaceAll(l.version, "+", "%2B"))
		b.Components = append(b.Components, component{Type: "library", Ref: purl, Name: l.path, Version: l.version, Scope: "required",
			Licences: licenceIDs(l.licences...), PURL: purl})
		for _, user := range l.users {
			uses["usr/bin/"+user] = append(uses["usr/bin/"+user], purl)
		}
	}
	for i, p := range parts {
		purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=debian-12", p.name, strings.ReplaceAll(p.version, "+", "%2B"), arch)
		b.Components = append(b.Components, component{Type: "operating-system", Ref: purl, Name: p.name, Version: p.version,
			Hashes: []hash{{"SHA-256", p.sha256}}, Licences: licenceIDs(debianLicences[p.sourceName()]), PURL: purl,
			References: []external{{"source-distribution", sourceURL(p)}}})
		holder := ramdiskFile
		if i == loaderPart {
			holder = loaderFile
		}
		uses[holder] = append(uses[holder], purl)
	}
	uses[ramdiskFile] = append(uses[ramdiskFile], "usr/bin/metald-agent")
	for _, ref := range append([]string{"metald"}, uses["metald"]...) {
		b.Dependencies = append(b.Dependencies, dependency{ref, uses[ref]})
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the bill of materials: %w", err)
	}
	return append(text, '\n'), nil
}

func licenceIDs(ids ...string) []licence {
	var out []licence
	for _, id := range ids {
		out = append(out, licence{licenceID{id}})
	}
	return out
}

// sourceURL is where Debian keeps the source of a package for good.
func sourceURL(p debianPackage) string {
	return "https://snapshot.debian.org/package/" + p.sourceName() + "/" + p.sourceVersion() + "/"
}

// noticeText is what Apache-2.0, GPL and LGPL ask to be said to whoever gets the release.
func noticeText(libraries []*library, parts []debianPackage) (string, error) {
	var b strings.Builder
	b.WriteString("metald\n\nThis product is licensed under Apache-2.0 (LICENSE). Its programs are linked of the Go modules below; the text of each\n" +
		"licence is in licences/.\n\n")
	for _, l := range libraries {
		fmt.Fprintf(&b, "  %-66s %-38s %s\n", l.path, l.version, strings.Join(l.licences, ", "))
	}
	b.WriteString("\nFrom Debian 12, unchanged, with where the source of each is:\n\n")
	for i, what := range []string{"the Linux kernel and some of its modules, in " + ramdiskFile,
		"systemd's EFI boot stub, in " + ramdiskFile, "iPXE, as " + loaderFile}[:len(parts)] {
		p := parts[i]
		fmt.Fprintf(&b, "  %s: %s, package %s %s\n    %s\n", what, debianLicences[p.sourceName()], p.name, p.version, sourceURL(p))
	}
	b.WriteString("Whoever passes this release on passes on these as well: keep their sources at hand.\n")
	for _, l := range libraries {
		for _, name := range l.notices {
			text, err := os.ReadFile(filepath.Join(l.dir, name))
			if err != nil {
				return "", fmt.Errorf("reading the notice of %s: %w", l.path, err)
			}
			fmt.Fprintf(&b, "\n---- %s %s, %s\n\n%s\n", l.path, l.version, name, strings.TrimSpace(string(text)))
		}
	}
	return b.String(), nil
}

const copyrightText = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: metald
Comment: /usr/share/doc/metald/NOTICE names every part and its licence, licences/ has the texts.

Files: *
Copyright: the metald maintainers
License: Apache-2.0
 See /usr/share/common-licenses/Apache-2.0.

Files: usr/share/metald/*.efi
Copyright: Linus Torvalds and many others (Linux), the systemd authors, Michael Brown and others (iPXE), the metald maintainers
License: GPL-2 and GPL-2+ and LGPL-2.1+ and Apache-2.0
 The Linux kernel under GPL-2 and iPXE under GPL-2+, see /usr/share/common-licenses/GPL-2; systemd's boot stub under
 LGPL-2.1+, see /usr/share/common-licenses/LGPL-2.1; metald-agent under Apache-2.0. NOTICE says where the sources are.
`
