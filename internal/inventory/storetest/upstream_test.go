// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// notRun are upstream's functions that the suite leaves out, each with the reason.
var notRun = map[string]string{
	"RunTestOptionalWatchBookmarksWithCorrectResourceVersion": "of a watch cache alone: the stock store makes no bookmarks by itself, and upstream runs it on its cacher only",
	"RunBenchmarkStoreList":                                   "a benchmark; make bench measures reads beside real peers",
	"RunBenchmarkStoreStats":                                  "a benchmark; nothing of ours counts keys",
	"RunBenchmarkWriteThroughput":                             "a benchmark; make bench measures durable writes and watches beside real peers",
}

// TestNothingIsLeftOut compares what upstream exports in the version that go.mod names with what this suite calls: a function
// that a new version brings is run or gets a reason.
func TestNothingIsLeftOut(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "k8s.io/apiserver/pkg/storage/testing").Output()
	if err != nil {
		t.Fatalf("looking for upstream's suite: %v", err)
	}
	exported, called := map[string]bool{}, map[string]bool{}
	for _, f := range parse(t, strings.TrimSpace(string(dir))) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Run") {
				exported[fn.Name.Name] = true
			}
		}
	}
	for _, f := range parse(t, ".") {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if fn, ok := call.Fun.(*ast.SelectorExpr); ok {
				if of, ok := fn.X.(*ast.Ident); ok && of.Name == "upstream" {
					called[fn.Sel.Name] = true
				}
			}
			return true
		})
	}
	if len(exported) < 60 {
		t.Errorf("upstream has %d functions: is this its suite?", len(exported))
	}
	for name := range exported {
		switch why, left := notRun[name]; {
		case !called[name] && !left:
			t.Errorf("%s is not run, and nobody says why", name)
		case called[name] && left:
			t.Errorf("%s is run, and said not to be: %s", name, why)
		}
	}
	for name := range notRun {
		if !exported[name] {
			t.Errorf("%s is not upstream's any more", name)
		}
	}
}

// parse reads the files of a directory that are no tests.
func parse(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}
