// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package mutation builds Go packages in which single rules can be disabled, so that a test
// can check that another test detects this.
//
// The sources contain nothing of it. A table next to the tests lists which text of which file
// is replaced, and by what. The go command's -overlay flag replaces the files during a build,
// so the checkout is never changed. One build serves all mutants of a package: the replaced
// text checks at run time which mutant is on. The environment variable [Env] names it.
package mutation

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// Env is the environment variable that names the mutant that is on. Without it, a process
// behaves like the sources.
const Env = "MUTANT"

// On is the placeholder in [Edit.New] for the Go expression "this mutant is on".
const On = "MUTANT_ON"

// Edit replaces one piece of text in one file.
type Edit struct {
	File string // relative to the folder of the package; may lead into that of another package
	Old  string // must be in the file exactly once
	New  string // Go code; every On becomes a condition
}

// Mutant is a package in which one rule is disabled.
type Mutant struct {
	Name  string // what it does instead
	Edits []Edit
	// Equivalent is the reason why no test can detect the mutant. Empty if a test must detect it.
	Equivalent string
}

// Package is a set of mutants of one package.
type Package struct {
	Dir     string   // folder of the package, absolute or relative to the working directory
	Name    string   // of the package, as in its package clause
	Tests   string   // folder of the tests that must detect the mutants, relative to Dir; empty if they are in Dir
	Imports []string // import specs for Extra
	Extra   string   // Go declarations that the edits use; they are written to a separate file
	Mutants []Mutant
}

// WriteOverlay writes the files that the go command needs to build the packages with all their
// mutants into an empty folder, and returns the path for -overlay. It fails if an edit's Old is
// not in its file exactly once.
func WriteOverlay(folder string, packages ...Package) (path string, err error) {
	replace := map[string]string{}
	for _, p := range packages {
		dir, err := filepath.Abs(p.Dir)
		if err != nil {
			return "", err
		}
		files, err := p.apply(dir)
		if err != nil {
			return "", err
		}
		support, err := p.support(dir, files)
		if err != nil {
			return "", err
		}
		maps.Copy(files, support)
		for original, text := range files {
			if replace[original] != "" {
				return "", fmt.Errorf("two packages edit the folder of %s", original)
			}
			mutated := filepath.Join(folder, fmt.Sprintf("%d_%s", len(replace), filepath.Base(original)))
			if err := os.WriteFile(mutated, []byte(text), 0o644); err != nil {
				return "", err
			}
			replace[original] = mutated
		}
	}
	overlay, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "\t")
	if err != nil {
		return "", err
	}
	path = filepath.Join(folder, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o644)
}

// apply returns the mutated text of each file that an edit names.
func (p Package) apply(dir string) (map[string]string, error) {
	originals, mutated := map[string]string{}, map[string]string{}
	for _, m := range p.Mutants {
		for _, e := range m.Edits {
			file := filepath.Join(dir, e.File)
			if _, ok := originals[file]; !ok {
				text, err := os.ReadFile(file)
				if err != nil {
					return nil, fmt.Errorf("mutant %q: %w", m.Name, err)
				}
				originals[file], mutated[file] = string(text), string(text)
			}
			// Check the original text and the text changed by other mutants: two edits of
			// one place would overwrite each other.
			for _, text := range []string{originals[file], mutated[file]} {
				if n := strings.Count(text, e.Old); n != 1 {
					return nil, fmt.Errorf("mutant %q: this text is in %s %d times instead of once:\n%s", m.Name, e.File, n, e.Old)
				}
			}
			condition := fmt.Sprintf("mutantIsOn(%q)", m.Name)
			if !strings.Contains(e.New, On) {
				return nil, fmt.Errorf("mutant %q: the new text for %s does not contain %s", m.Name, e.File, On)
			}
			mutated[file] = strings.Replace(mutated[file], e.Old, strings.ReplaceAll(e.New, On, condition), 1)
		}
	}
	return mutated, nil
}

// support returns the files that are added: one to the package, and one to every other
// package that its mutants edit.
func (p Package) support(dir string, edited map[string]string) (map[string]string, error) {
	added := map[string]string{}
	for file := range edited {
		clause, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly)
		if err != nil {
			return nil, err
		}
		added[filepath.Join(filepath.Dir(file), supportFile)] = supportText(clause.Name.Name, nil, "")
	}
	added[filepath.Join(dir, supportFile)] = supportText(p.Name, p.Imports, p.Extra)
	return added, nil
}

const supportFile = "zz_mutants.go"

func supportText(name string, imports []string, extra string) string {
	return fmt.Sprintf(`package %s

import (
	mutantos "os"
	%s
)

var mutantName = mutantos.Getenv(%q)

func mutantIsOn(name string) bool { return mutantName == name }

%s
`, name, strings.Join(imports, "\n\t"), Env, extra)
}
