// Command sbom lists what the programs are made of: every module that is compiled into them, with its version and its
// licence, as a CycloneDX software bill of materials, and the texts of the licences, which go with the programs when
// they are passed on. It asks nobody: what it reads is in the module cache.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

func main() {
	root := flag.String("root", "..", "folder of the project's module")
	out := flag.String("out", "", "folder for bom.cdx.json and THIRD_PARTY_NOTICES.txt")
	flag.Parse()
	if err := run(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// module is a module as `go list` shows it, with its licence.
type module struct {
	Path, Version, Dir string
	Main               bool

	ids   []string // of licences, as SPDX names them
	texts []text
}

// text is a file that has to go with the programs.
type text struct {
	name    string
	content []byte
}

func run(root, out string) error {
	modules, err := compiled(root)
	if err != nil {
		return err
	}
	modules = append(modules, module{Path: "std", Version: strings.TrimPrefix(runtime.Version(), "go"), Dir: runtime.GOROOT()})
	var problems []error
	for i := range modules {
		problems = append(problems, modules[i].readLicence())
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	list, err := bill(modules)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(out, "bom.cdx.json"), list, 0o644),
		os.WriteFile(filepath.Join(out, "THIRD_PARTY_NOTICES.txt"), notices(modules), 0o644))
}

// compiled are the modules with packages that any of the programs has, on any of the platforms, sorted by path.
func compiled(root string) ([]module, error) {
	all := map[string]module{}
	for _, platform := range []string{"linux/amd64", "linux/arm64", "darwin/arm64"} {
		system, machine, _ := strings.Cut(platform, "/")
		cmd := exec.Command("go", "list", "-deps", "-tags", "cuda", "-json=Module", "./stages/...", "./pipelines/...")
		cmd.Dir, cmd.Stderr = root, os.Stderr
		cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+machine, "CGO_ENABLED=1")
		listed, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list for %s: %w", platform, err)
		}
		for d := json.NewDecoder(bytes.NewReader(listed)); ; {
			var pkg struct{ Module *module }
			if err := d.Decode(&pkg); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			if m := pkg.Module; m != nil && !m.Main {
				all[m.Path] = *m
			}
		}
	}
	var modules []module
	for _, m := range all {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b module) int { return cmp.Compare(a.Path, b.Path) })
	return modules, nil
}

// licenceFile matches the names of files that say what may be done with a module.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents|unlicense)([-._].*)?$`)

// signs are sentences that only the text of one licence has, by the licence's name in SPDX.
var signs = map[string][]string{
	"Apache-2.0": {"Apache License Version 2.0, January 2004"},
	"MIT": {"Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated " +
		"documentation files", "The above copyright notice and this permission notice"},
	"BSD-2-Clause": {"Redistributions of source code must retain the above copyright", "Redistributions in binary form must"},
	"BSD-3-Clause": {"Redistributions of source code must retain the above copyright", "Redistributions in binary form must",
		"may be used to endorse or promote products derived from"},
	"MPL-2.0":   {"Mozilla Public License Version 2.0"},
	"ISC":       {"Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"},
	"Unlicense": {"This is free and unencumbered software released into the public domain"},
	"CC0-1.0":   {"CC0 1.0 Universal"},
	"CC-BY-4.0": {"Creative Commons Attribution 4.0 International Public License"},
	"OFL-1.1":   {"SIL OPEN FONT LICENSE Version 1.1"},
	"FTL":       {"The FreeType Project LICENSE"},
	"GPL-2.0":   {"GNU GENERAL PUBLIC LICENSE Version 2"},
}

// recognised are the licences whose texts are in a file.
func recognised(content []byte) (ids []string) {
	plain := strings.ToLower(strings.Join(strings.Fields(string(content)), " "))
	for id, sentences := range signs {
		if !slices.ContainsFunc(sentences, func(s string) bool { return !strings.Contains(plain, strings.ToLower(s)) }) {
			ids = append(ids, id)
		}
	}
	if slices.Contains(ids, "BSD-3-Clause") { // which says all that the shorter one says
		ids = slices.DeleteFunc(ids, func(id string) bool { return id == "BSD-2-Clause" })
	}
	return ids
}

// chosen is the licence that the project takes a module under, where its owners let one choose.
var chosen = map[string]string{"github.com/golang/freetype": "FTL"}

// readLicence reads the licence of a module. A module in which none is recognised is an error: a person has to look.
func (m *module) readLicence() error {
	for _, pattern := range []string{"*", "licenses/*", "README*"} {
		paths, err := filepath.Glob(filepath.Join(m.Dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			named := licenceFile.MatchString(filepath.Base(path)) && filepath.Ext(path) != ".go"
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || pattern == "*" && !named {
				continue
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			ids := recognised(content)
			if only := chosen[m.Path]; pattern == "README*" && len(ids) == 0 || only != "" && len(ids) > 0 && ids[0] != only {
				continue
			}
			m.texts = append(m.texts, text{filepath.Base(path), content})
			m.ids = append(m.ids, ids...)
		}
		if len(m.ids) > 0 {
			break
		}
	}
	if len(m.ids) == 0 {
		return fmt.Errorf("%s %s: no licence is recognised in %s: read it, and add what it says to signs", m.Path, m.Version,
			m.Dir)
	}
	slices.Sort(m.ids)
	m.ids = slices.Compact(m.ids)
	return nil
}

// bill is the software bill of materials: CycloneDX 1.6. Equal modules give equal bytes.
func bill(modules []module) ([]byte, error) {
	type object map[string]any
	var components []object
	for _, m := range modules {
		var licences []object
		for _, id := range m.ids {
			licences = append(licences, object{"license": object{"id": id}})
		}
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		components = append(components, object{"type": "library", "bom-ref": purl, "name": m.Path, "version": m.Version,
			"purl": purl, "licenses": licences})
	}
	list, err := json.MarshalIndent(object{
		"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata":   object{"component": object{"type": "application", "name": "bitnet1"}},
		"components": components,
	}, "", "  ")
	return append(list, '\n'), err
}

// notices are the texts of all licences.
func notices(modules []module) []byte {
	var b bytes.Buffer
	b.WriteString("The programs of bitnet1 contain the following software, under the licences below.\n")
	for _, m := range modules {
		fmt.Fprintf(&b, "\n%s\n%s %s (%s)\n", strings.Repeat("=", 80), m.Path, m.Version, strings.Join(m.ids, ", "))
		for _, t := range m.texts {
			fmt.Fprintf(&b, "\n---- %s\n\n%s\n", t.name, bytes.TrimSpace(t.content))
		}
	}
	return b.Bytes()
}
