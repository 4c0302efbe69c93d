// SPDX-License-Identifier: Apache-2.0

// Package test holds the rules of the house as data: who may import whom, how long a file may be, what a package must say of
// itself. It must not know what the rooms do. Start reading at arrows; a change of that table is a change of the architecture,
// and is seen in review as one.
package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	module   = "metald.io/metald/"
	spdx     = "// SPDX-License-Identifier: Apache-2.0"
	maxLines = 500
)

// arrows says for every room which other rooms it may import, besides itself. None runs upwards, none sideways.
var arrows = map[string][]string{
	"api": {},

	"inventory": {"api"},
	"bmc":       {"api"},
	"pxe":       {"api"},
	"imaging":   {"api"},
	"gpu":       {"api"},
	"cluster":   {"api"},

	"provision": {"api", "inventory", "bmc", "pxe", "imaging", "cluster", "gpu"},
	"apiserver": {"api", "inventory"},
	"desk":      {"api", "inventory"},
	"agent":     {"api", "gpu", "imaging"},

	"daemon": {"api", "inventory", "bmc", "pxe", "imaging", "gpu", "cluster", "provision", "apiserver", "desk"},

	// provision for `metald plan` alone: it shows what the mind's own rules say, instead of having rules of its own.
	// inventory for `metald audit` alone: its package audit verifies an export where no daemon is.
	"cmd/metald":       {"api", "bmc", "imaging", "inventory", "provision", "daemon"},
	"cmd/metald-agent": {"api", "gpu", "imaging", "agent"},

	// The lab and the scenarios stand beside the house and may look into every room.
	"test": {"api", "inventory", "bmc", "pxe", "imaging", "gpu", "cluster", "provision", "apiserver", "desk", "agent", "daemon"},
	// Programs that go into an image, and know nothing of metald.
	"deploy": {},
}

// reasons say why an arrow that somebody will want is not there.
var reasons = map[string]string{
	"provision>desk":      "the mind reads facts from the inventory, where the desk put them; neither calls the other",
	"provision>apiserver": "the mind writes through the inventory: same keys, same versions, a fifth of the work",
	"provision>agent":     "orders travel as api types; what an agent does with them is its own matter",
	"desk>provision":      "the desk carries words and decides nothing; it declares what it asks of the mind as an interface",
	"desk>agent":          "they meet in the api's wire types only, so that an old agent and a new desk still understand each other",
	"apiserver>provision": "the users' door stores wishes and shows facts; it never decides",
	"pxe>imaging":         "the boot servers ask for bytes by digest through an interface of their own",
	"agent>daemon":        "the agent must stay small: no Metal3 types, no store, no API server",
	"daemon>agent":        "the agent runs on another machine",
	"cmd/metald>cluster":  "commands are clients of the API; only the daemon talks to clusters",
}

// long are the files that may be longer than the rest, each with the reason.
var long = map[string]string{}

// badNames are package names that say nothing about what is inside.
var badNames = []string{"util", "utils", "common", "helper", "helpers", "types", "constants", "consts", "config", "errors", "log", "misc", "base", "lib", "shared", "models", "manager"}

// file is one Go file of the main module, parsed up to its imports and comments.
type file struct {
	path  string
	lines []string
	ast   *ast.File
}

func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }
func (f file) generated() bool {
	return ast.IsGenerated(f.ast)
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// files parses all Go files of the main module.
func files(t *testing.T) []file {
	t.Helper()
	var all []file
	set := token.NewFileSet()
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != top {
			if strings.HasPrefix(name, ".") || slices.Contains([]string{"testdata", "build", "bin", "dist"}, name) {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return filepath.SkipDir
			}
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		short, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		all = append(all, file{path: filepath.ToSlash(short), lines: strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), ast: parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d Go files below %s: is this the repository?", len(all), top)
	}
	return all
}

// room is which room a directory of the repository belongs to.
func room(dir string) string {
	parts := strings.Split(dir, "/")
	switch parts[0] {
	case "internal":
		if len(parts) > 1 {
			return parts[1]
		}
	case "cmd":
		if len(parts) > 1 {
			return "cmd/" + parts[1]
		}
	}
	return parts[0]
}

func TestArrows(t *testing.T) {
	for _, f := range files(t) {
		from := room(filepath.ToSlash(filepath.Dir(f.path)))
		may, known := arrows[from]
		if !known {
			t.Errorf("%s: %q is no room of the house: add it to the table with its arrows, or find the room it belongs to", f.path, from)
			continue
		}
		if f.isTest() {
			continue // a test may build on anything: nothing inside the house is faked
		}
		for _, i := range f.ast.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			if !strings.HasPrefix(path, module) {
				continue
			}
			to := room(strings.TrimPrefix(path, module))
			if to == from || slices.Contains(may, to) {
				continue
			}
			why := reasons[from+">"+to]
			if why == "" {
				why = "it may import " + strings.Join(append(may, "nothing else"), ", ")
			}
			t.Errorf("%s: %s must not import %s: %s", f.path, from, to, why)
		}
	}
}

// The table itself must be a house: no arrow to a room that is not there, none in a circle.
func TestArrowsRunDown(t *testing.T) {
	var visit func(room string, above []string)
	visit = func(room string, above []string) {
		if slices.Contains(above, room) {
			t.Fatalf("arrows run in a circle: %v > %s", above, room)
		}
		may, known := arrows[room]
		if !known {
			t.Fatalf("%v may import %q, which is no room", above, room)
		}
		for _, next := range may {
			visit(next, append(slices.Clone(above), room))
		}
	}
	for room := range arrows {
		visit(room, nil)
	}
	for arrow := range reasons {
		from, to, _ := strings.Cut(arrow, ">")
		if slices.Contains(arrows[from], to) {
			t.Errorf("%s is both allowed and said to be forbidden", arrow)
		}
	}
}

// What runs on a host is small, and knows nothing of what only the daemon needs.
func TestAgentStaysSmall(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "./cmd/metald-agent")
	list.Dir = root(t)
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("listing what the agent links: %v", err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for bad, why := range map[string]string{
			"github.com/metal3-io/":                       "Metal3's types are the daemon's",
			"go.etcd.io/":                                 "the store is the daemon's",
			"k8s.io/apiserver":                            "the API server is the daemon's",
			"k8s.io/client-go":                            "the agent starts kubelet; it does not talk to a cluster",
			"github.com/google/cel-go":                    "validation is the daemon's",
			"sigs.k8s.io/controller-runtime":              "the agent reconciles nothing",
			"github.com/spf13/":                           "PID 1 has no command line to speak of",
			"github.com/insomniacslk/dhcp/dhcpv4/server4": "the agent asks, it does not answer",
			module + "internal/imaging/osimage":           "building images is the daemon's half",
			module + "internal/imaging/ramdisk":           "building ramdisks is the daemon's half",
		} {
			if strings.HasPrefix(dep+"/", bad) || strings.HasPrefix(dep, bad) {
				t.Errorf("the agent links %s: %s", dep, why)
			}
		}
	}
}

func TestFileLengths(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range files(t) {
		if f.generated() {
			continue
		}
		if _, leave := long[f.path]; leave {
			seen[f.path] = true
			if len(f.lines) <= maxLines {
				t.Errorf("%s has %d lines and needs no leave any more", f.path, len(f.lines))
			}
			continue
		}
		if len(f.lines) > maxLines {
			t.Errorf("%s has %d lines, more than %d: what is its second subject?", f.path, len(f.lines), maxLines)
		}
	}
	for path := range long {
		if !seen[path] {
			t.Errorf("%s has leave to be long, but is not there", path)
		}
	}
}

func TestLicenceLine(t *testing.T) {
	for _, f := range files(t) {
		if !f.generated() && f.lines[0] != spdx {
			t.Errorf("%s: the first line is %q, want %q", f.path, f.lines[0], spdx)
		}
	}
}

// A package says what it does, what it must not know, and where to start reading.
func TestPackageDocs(t *testing.T) {
	type pkg struct {
		name, doc string
		lines     int
	}
	packages := map[string]*pkg{}
	for _, f := range files(t) {
		if f.isTest() {
			continue
		}
		dir := filepath.ToSlash(filepath.Dir(f.path))
		if packages[dir] == nil {
			packages[dir] = &pkg{name: f.ast.Name.Name}
		}
		packages[dir].lines += len(f.lines)
		if f.ast.Doc != nil {
			// Directives alone are no documentation; Text leaves them out.
			packages[dir].doc += f.ast.Doc.Text()
		}
	}
	for dir, p := range packages {
		want := "Package " + p.name + " "
		if p.name == "main" {
			want = "Command " + filepath.Base(dir) + " "
		}
		doc := strings.Join(strings.Fields(p.doc), " ")
		switch {
		case !strings.HasPrefix(doc+" ", want):
			t.Errorf("%s: its package comment must begin with %q, got %.40q", dir, want, doc)
		case p.lines < aPage:
			// Whoever has read the comment has read half of it.
		case !limits.MatchString(doc):
			t.Errorf("%s: its package comment does not say what it must not know or do", dir)
		case !strings.Contains(strings.ToLower(doc), "start reading"):
			t.Errorf("%s: its package comment does not say where to start reading", dir)
		}
	}
}

// aPage is how many lines of code need no guide.
const aPage = 60

// limits are the words in which a package says what it keeps out of.
var limits = regexp.MustCompile(`must not|[Kk]nows? nothing|has no behaviour`)

func TestNames(t *testing.T) {
	for _, f := range files(t) {
		name := strings.TrimSuffix(f.ast.Name.Name, "_test")
		if slices.Contains(badNames, name) || name != strings.ToLower(name) || strings.Contains(name, "_") {
			t.Errorf("%s: package %s: a package's name is one short noun that says what is inside", f.path, name)
		}
		if f.generated() {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && getter.MatchString(fn.Name.Name) && !othersNames[fn.Name.Name] {
				t.Errorf("%s: %s: no Get on getters", f.path, fn.Name.Name)
			}
		}
	}
}

var getter = regexp.MustCompile(`^Get[A-Z]`)

// othersNames are names that interfaces outside of the house ask for.
var othersNames = map[string]bool{
	"GetObjectKind": true, "GetObjectMeta": true, "GetObject": true, "GetOpenAPIDefinitions": true, "GetTable": true, "GetResetFields": true,
	"GetSingularName": true, "GetAttrs": true, "GetList": true, "GetCurrentResourceVersion": true, "GetStream": true, "GetRESTOptions": true, "GetWithHeaders": true,
}

// Unfinished work is not committed, and no file knows where its author's checkout lies.
func TestNothingIsLeftLyingAbout(t *testing.T) {
	unfinished := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	checkout := "/wo" + "rk/"
	for _, f := range files(t) {
		for i, line := range f.lines {
			where := fmt.Sprintf("%s:%d", f.path, i+1)
			if unfinished.MatchString(line) {
				t.Errorf("%s: unfinished: %s", where, strings.TrimSpace(line))
			}
			if strings.Contains(line, checkout) {
				t.Errorf("%s: a path of one machine: %s", where, strings.TrimSpace(line))
			}
		}
	}
}
