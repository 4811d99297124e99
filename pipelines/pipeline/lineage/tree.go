package lineage

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/terminal"
)

// WriteTree draws a graph as a tree whose root is the artifact that was asked for, in lines of at most width columns; 0
// is any width. What several jobs read is drawn once.
func (g *Graph) WriteTree(out io.Writer, width int) error {
	t := &tree{g: g, out: out, width: cmp.Or(width, 1<<20), drawn: map[string]bool{}}
	t.artifact(&g.Artifacts[0], "", "", "")
	return t.err
}

type tree struct {
	g     *Graph
	out   io.Writer
	width int
	drawn map[string]bool // digests, and ids of sources
	err   error
}

// mostChildren bounds what is drawn of a job's inputs: a dataset can have thousands of sources.
const mostChildren = 12

// line writes a text whose first line has one prefix and whose others have another. It breaks words where there is no
// other way.
func (t *tree) line(first, others, text string) {
	prefix := first
	for _, words := range terminal.Wrap(text, max(20, t.width-len([]rune(others)))) {
		for room := max(20, t.width-len([]rune(prefix))); len([]rune(words)) > room; {
			r := []rune(words)
			t.print(prefix + string(r[:room]))
			prefix, words = others, string(r[room:])
		}
		t.print(prefix + words)
		prefix = others
	}
}

func (t *tree) print(line string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.out, strings.TrimRight(line, " "))
	}
}

// artifact draws an artifact and what it came from. As says what it is to the job that read it.
func (t *tree) artifact(a *Artifact, first, others, as string) {
	head := fmt.Sprintf("%s  %s%s, %s, %s", a.Name, as, a.Kind, results.Size(a.Size), digest.Short(a.Digest))
	if !a.There {
		head += ", gone"
	}
	if t.drawn[a.Digest] {
		t.line(first, others, head+" (above)")
		return
	}
	t.drawn[a.Digest] = true
	t.line(first, others, head)
	for _, rows := range a.Rows {
		t.line(others+"  ", others+"    ", fmt.Sprintf("of %s %s", rows.Source, rows))
	}
	t.problem(others, a.Problem)
	if a.Job == "" {
		t.line(others+"  ", others+"    ", "made by no job that is known here")
		return
	}
	t.job(t.g.job(a.Job), others)
}

func (t *tree) problem(prefix, text string) {
	if text != "" {
		t.line(prefix+"  ! ", prefix+"    ", text)
	}
}

func (t *tree) job(j *Job, prefix string) {
	made := "made by " + j.Stage + ", job " + digest.Short(j.Key)
	if t.drawn[j.Key] {
		t.line(prefix+"  ", prefix+"    ", made+" (above)")
		return
	}
	t.drawn[j.Key] = true
	if j.Run != "" {
		made += ", in run " + j.Run
	}
	switch len(j.Events) {
	case 0:
	case 1:
		made += fmt.Sprintf(", for %s %s", j.Answers, digest.Short(j.Events[0]))
	default:
		made += fmt.Sprintf(", for %d × %s", len(j.Events), j.Answers)
	}
	t.line(prefix+"  ", prefix+"    ", made)
	t.parameters(j, prefix)
	t.problem(prefix, j.Problem)
	children := t.children(j)
	for i, child := range children {
		first, others := "├─ ", "│  "
		if i == len(children)-1 {
			first, others = "└─ ", "   "
		}
		child(prefix+first, prefix+others)
	}
}

// parameters writes those that were given; where that is not known, all.
func (t *tree) parameters(j *Job, prefix string) {
	values, what := j.Given, "with "
	if j.Run == "" {
		values = parametersOf(j)
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		value := values[key]
		switch {
		case digest.Valid(value):
			value = digest.Short(value)
		case strings.Contains(value, " "):
			value = strconv.Quote(value)
		}
		parts = append(parts, key+"="+value)
	}
	if len(parts) == 0 {
		parts, what = []string{"default parameters"}, "with "
	}
	t.line(prefix+"  ", prefix+"    ", what+strings.Join(parts, ", "))
}

// children draw the inputs of a job.
func (t *tree) children(j *Job) (all []func(first, others string)) {
	named := func(sums []string, as string) {
		for _, sum := range sums {
			all = append(all, func(first, others string) { t.artifact(t.g.artifact(sum), first, others, as) })
		}
	}
	named(j.Artifacts, "")
	named(j.Named, "named by parameters, ")
	for _, id := range j.Sources {
		all = append(all, func(first, others string) { t.source(t.g.source(id), first, others) })
	}
	for _, in := range j.Unknown {
		all = append(all, func(first, others string) {
			t.line(first, others, "input "+short(in)+"  of which nothing is known here")
		})
	}
	if len(all) > mostChildren {
		left := len(all) - mostChildren
		all = append(all[:mostChildren:mostChildren], func(first, others string) {
			t.line(first, others, fmt.Sprintf("and %d more: --json has all", left))
		})
	}
	return all
}

func short(text string) string {
	if digest.Valid(text) {
		return digest.Short(text)
	}
	return text
}

func (t *tree) source(s *Source, first, others string) {
	head := fmt.Sprintf("%s  source, %s, %s", s.Name, results.Size(s.Size), short(s.Digest))
	if t.drawn[s.ID] {
		t.line(first, others, head+" (above)")
		return
	}
	t.drawn[s.ID] = true
	t.line(first, others, head)
	t.line(others+"  ", others+"    ", "at "+s.Path)
	if len(s.Parameters) > 0 {
		t.line(others+"  ", others+"    ", "with "+string(s.Parameters))
	}
	if r := s.Read; r != nil {
		text := fmt.Sprintf("%d rows read, %d documents", r.Rows, r.Documents)
		for _, left := range []struct {
			n    int64
			what string
		}{{r.Nulls, "without text"}, {r.Filtered, "filtered out"}, {r.Odd, "not understood"}} {
			if left.n > 0 {
				text += fmt.Sprintf(", %d %s", left.n, left.what)
			}
		}
		if s.Rows != nil && s.Rows.Count > 0 {
			text += ": " + s.Rows.String()
		}
		t.line(others+"  ", others+"    ", text)
	}
	t.problem(others, s.Problem)
}
