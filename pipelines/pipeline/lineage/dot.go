package lineage

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"bitnet1/shared/digest"
)

// WriteDot writes a graph in the language of Graphviz: sources are folders, jobs ellipses, artifacts boxes. Arrows lead
// from what was read to what was made.
func (g *Graph) WriteDot(out io.Writer) error {
	var b strings.Builder
	b.WriteString("digraph lineage {\n\trankdir=LR;\n\tnode [fontname=\"sans-serif\", fontsize=10];\n")
	for _, s := range g.Sources {
		fmt.Fprintf(&b, "\t%q [shape=folder, label=%q];\n", s.ID, s.Name)
	}
	for _, a := range g.Artifacts {
		fmt.Fprintf(&b, "\t%q [shape=box, label=%q];\n", a.Digest, a.Name+"\n"+digest.Short(a.Digest))
		if a.Job != "" {
			fmt.Fprintf(&b, "\t%q -> %q;\n", a.Job, a.Digest)
		}
	}
	for _, j := range g.Jobs {
		fmt.Fprintf(&b, "\t%q [shape=ellipse, label=%q];\n", j.Key, j.Stage)
		for _, id := range slices.Concat(j.Sources, j.Artifacts) {
			fmt.Fprintf(&b, "\t%q -> %q;\n", id, j.Key)
		}
		for _, sum := range j.Named {
			fmt.Fprintf(&b, "\t%q -> %q [style=dashed];\n", sum, j.Key)
		}
	}
	b.WriteString("}\n")
	_, err := io.WriteString(out, b.String())
	return err
}
