package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryModuleHasALicence(t *testing.T) {
	out := t.TempDir()
	if err := run("../..", out); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(out, "bom.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		BOMFormat  string `json:"bomFormat"`
		Components []struct {
			Name, Version, PURL string
			Licenses            []struct{ License struct{ ID string } }
		}
	}
	if err := json.Unmarshal(content, &list); err != nil || list.BOMFormat != "CycloneDX" {
		t.Fatalf("format %q: %v", list.BOMFormat, err)
	}
	texts, err := os.ReadFile(filepath.Join(out, "THIRD_PARTY_NOTICES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"github.com/nats-io/nats-server/v2": "Apache-2.0", "github.com/urfave/cli/v2": "MIT",
		"github.com/JohnCGriffin/overflow": "MIT", "golang.org/x/sys": "BSD-3-Clause", "std": "BSD-3-Clause",
		"github.com/golang/freetype": "FTL"}
	for _, c := range list.Components {
		if !strings.Contains(string(texts), c.Name+" "+c.Version) || c.PURL != "pkg:golang/"+c.Name+"@"+c.Version {
			t.Errorf("%s %s (%s) is not among the notices", c.Name, c.Version, c.PURL)
		}
		if id := want[c.Name]; id != "" && (len(c.Licenses) != 1 || c.Licenses[0].License.ID != id) {
			t.Errorf("%s has %v, want %s", c.Name, c.Licenses, id)
		}
		delete(want, c.Name)
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
}

func TestLicencesAreToldApart(t *testing.T) {
	const two = "Redistributions of source code must retain the above copyright notice. Redistributions in binary\n form must"
	for content, want := range map[string][]string{
		two: {"BSD-2-Clause"}, two + " … may be used to endorse or promote\nproducts derived from": {"BSD-3-Clause"},
		"All rights reserved.": nil, "Permission is hereby granted, free of charge": nil,
	} {
		if got := recognised([]byte(content)); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", content, got, want)
		}
	}
}
