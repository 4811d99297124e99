package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// module is what ptx2go reads of a PTX file.
type module struct {
	target  string // sm_80, sm_90a, …
	entries map[string]*entry
}

// entry is a kernel in PTX.
type entry struct {
	params  []param
	threads int  // of a block, at most; 0: no bound
	shared  bool // uses dynamic shared memory
}

// param is a kernel's parameter in PTX, sizes in bytes.
type param struct {
	size, align int
	pointer     bool
}

var (
	ptxTarget = regexp.MustCompile(`^\.target (\w+)`)
	ptxShared = regexp.MustCompile(`^\.extern \.shared .* (\w+)\[\];`)
	ptxEntry  = regexp.MustCompile(`^\.visible \.entry (\w+)\(`)
	ptxParam  = regexp.MustCompile(`^\t\.param (?:\.align (\d+) )?\.([busf])(\d+)( \.ptr)?.*?(?:\[(\d+)\])?,?$`)
	ptxBound  = regexp.MustCompile(`^\.maxntid (\d+)`)
)

// parsePTX reads what clang writes for a .cu file.
func parsePTX(text string) (*module, error) {
	m := &module{entries: map[string]*entry{}}
	var dynamic []string // names of dynamic shared memory
	var e *entry
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if found := ptxTarget.FindStringSubmatch(line); found != nil {
			m.target = found[1]
		} else if found := ptxShared.FindStringSubmatch(line); found != nil {
			dynamic = append(dynamic, found[1])
		} else if found := ptxEntry.FindStringSubmatch(line); found != nil {
			e = &entry{}
			m.entries[found[1]] = e
		} else if e == nil {
			continue
		} else if line == "}" {
			e = nil
		} else if strings.HasPrefix(line, "\t.param ") {
			p, err := parseParam(line)
			if err != nil {
				return nil, err
			}
			e.params = append(e.params, p)
		} else if found := ptxBound.FindStringSubmatch(line); found != nil {
			e.threads, _ = strconv.Atoi(found[1])
		} else {
			for _, name := range dynamic {
				e.shared = e.shared || regexp.MustCompile(`\b`+name+`\b`).MatchString(line)
			}
		}
	}
	if m.target == "" {
		return nil, fmt.Errorf("it names no .target")
	}
	return m, nil
}

func parseParam(line string) (param, error) {
	found := ptxParam.FindStringSubmatch(line)
	if found == nil {
		return param{}, fmt.Errorf("unknown parameter %q", strings.TrimSpace(line))
	}
	bits, _ := strconv.Atoi(found[3])
	p := param{size: bits / 8, align: bits / 8, pointer: found[4] != ""}
	if found[1] != "" {
		p.align, _ = strconv.Atoi(found[1])
	}
	if found[5] != "" {
		n, _ := strconv.Atoi(found[5])
		p.size *= n
	}
	return p, nil
}
