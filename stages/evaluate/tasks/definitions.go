package tasks

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"bitnet1/shared/run/command"
)

// Definition says what a task is.
type Definition struct {
	Name    string
	Title   string // for people
	Source  string // the paper
	Metrics []string

	forms []form // of its rows; of several that a row has the keys of, the first one counts
}

// form is a form in which the rows of a task are published.
type form struct {
	keys string // that a row of this form has
	read func(r *row) Example
}

// Metrics, under the harness's names.
const (
	Accuracy   = "acc"        // the right answer has the highest log-likelihood, or is the greedy continuation
	Normalized = "acc_norm"   // the same with log-likelihoods over the characters of an answer
	ByBytes    = "acc_bytes"  // the same over its bytes
	Perplexity = "perplexity" // exp of the mean negative log-likelihood of an example
)

// The keys of MosaicML's llm-foundry, in whose form many sets are published.
const (
	foundry        = "query choices gold"
	foundrySchema  = "context_options continuation gold"
	foundryCompare = "context continuation"
)

var (
	accuracy   = []string{Accuracy}
	normalized = []string{Accuracy, Normalized, ByBytes}
)

// Definitions are all tasks.
func Definitions() []Definition { return definitions }

// definitions is the table of tasks. Contexts and continuations are to the letter those of the harness's task of the
// same name (lambada: lambada_openai), from rows of the datasets that the harness reads and from rows in the form of
// llm-foundry.
var definitions = []Definition{
	{"blimp", "BLiMP", "Warstadt et al. 2020, arXiv:1912.00582", accuracy, []form{
		{"sentence_good sentence_bad", func(r *row) Example {
			e := choice("", []string{r.text("sentence_good"), r.text("sentence_bad")}, 0)
			if r.has("UID") { // its paradigm
				e.Set = r.text("UID")
			}
			return e
		}},
	}},
	{"lambada", "LAMBADA", "Paperno et al. 2016, arXiv:1606.06031", []string{Perplexity, Accuracy}, []form{
		{foundryCompare, func(r *row) Example { return single(r.text("context"), " "+r.text("continuation")) }},
		{"text", func(r *row) Example { // its last word is to be predicted
			text := r.text("text")
			i := max(strings.LastIndexByte(text, ' '), 0)
			return single(text[:i], " "+strings.TrimPrefix(text[i:], " "))
		}},
	}},
	{"hellaswag", "HellaSwag", "Zellers et al. 2019, arXiv:1905.07830", normalized, []form{
		{"activity_label ctx_a ctx_b endings label", hellaswag},
		{foundry, func(r *row) Example { return choice(r.text("query"), r.texts("choices"), r.index("gold")) }},
	}},
	{"arc_easy", "ARC-Easy", arcSource, normalized, arcForms},
	{"arc_challenge", "ARC-Challenge", arcSource, normalized, arcForms},
	{"openbookqa", "OpenBookQA", "Mihaylov et al. 2018, arXiv:1809.02789", normalized, []form{
		{"question_stem choices answerKey", func(r *row) Example {
			return choice(r.text("question_stem"), r.texts("choices.text"), r.label("choices.label", "answerKey"))
		}},
		{foundry, func(r *row) Example { return choice(r.text("query"), r.texts("choices"), r.index("gold")) }},
	}},
	{"piqa", "PIQA", "Bisk et al. 2020, arXiv:1911.11641", normalized, []form{
		{"goal sol1 sol2 label", func(r *row) Example {
			return choice("Question: "+r.text("goal")+"\nAnswer:", []string{r.text("sol1"), r.text("sol2")}, r.index("label"))
		}},
		{foundry, func(r *row) Example { // the query is "Question: …\n"
			return choice(r.text("query")+"Answer:", r.texts("choices"), r.index("gold"))
		}},
	}},
	{"boolq", "BoolQ", "Clark et al. 2019, arXiv:1905.10044", accuracy, []form{
		{"passage question label", func(r *row) Example {
			return choice(r.text("passage")+"\nQuestion: "+r.text("question")+"?\nAnswer:", []string{"no", "yes"},
				r.index("label"))
		}},
		{foundry, func(r *row) Example { // the query is "Passage: …\nQuestion: …?"
			return choice(strings.TrimPrefix(r.text("query"), "Passage: ")+"\nAnswer:", r.texts("choices"), r.index("gold"))
		}},
	}},
	{"commonsense_qa", "CommonsenseQA", "Talmor et al. 2019, arXiv:1811.00937", accuracy, []form{
		{"question choices answerKey", commonsenseQA},
		{foundry, func(r *row) Example { return choice(r.text("query"), r.texts("choices"), r.index("gold")) }},
	}},
	{"copa", "COPA", "Roemmele et al. 2011, AAAI Spring Symposium", accuracy, []form{
		{"premise choice1 choice2 question label", copa},
		{foundry, func(r *row) Example {
			return choice(r.text("query"), before(" ", r.texts("choices")), r.index("gold"))
		}},
	}},
	{"winogrande", "WinoGrande", "Sakaguchi et al. 2019, arXiv:1907.10641", accuracy, []form{
		{"sentence option1 option2 answer", winogrande},
		{foundrySchema, func(r *row) Example {
			return schema(r.texts("context_options"), r.text("continuation"), r.index("gold"))
		}},
	}},
	{"wsc273", "WSC273", "Levesque et al. 2012; scored as by Trinh and Le 2018, arXiv:1806.02847", accuracy, []form{
		{"text pronoun pronoun_loc options label", winogradSchema},
		{foundrySchema, func(r *row) Example {
			return schema(r.texts("context_options"), " "+r.text("continuation"), r.index("gold"))
		}},
	}},
	{"multiple_choice", "multiple choice", "", normalized, []form{
		{foundry, func(r *row) Example { return choice(r.text("query"), r.texts("choices"), r.index("gold")) }},
		{foundrySchema, func(r *row) Example {
			return schema(r.texts("context_options"), r.text("continuation"), r.index("gold"))
		}},
	}},
}

// Names are the tasks that Find knows.
func Names() []string {
	var names []string
	for _, d := range Definitions() {
		names = append(names, d.Name)
	}
	return names
}

// Find returns the definition of a name.
func Find(name string) (Definition, error) {
	all := Definitions()
	i := slices.IndexFunc(all, func(d Definition) bool { return d.Name == name })
	if i < 0 {
		return Definition{}, command.UsageError(fmt.Errorf("there is no task %q; the tasks are %s", name,
			strings.Join(Names(), ", ")))
	}
	return all[i], nil
}

// choice is an example whose answers follow the same context after a space.
func choice(context string, choices []string, gold int) Example {
	e := Example{Gold: gold, Choices: choices}
	for _, c := range choices {
		e.Requests = append(e.Requests, Request{context, " " + c})
	}
	return e
}

// schema is an example whose answers are contexts of the same continuation (Trinh and Le 2018).
func schema(contexts []string, continuation string, gold int) Example {
	e := Example{Gold: gold, Choices: contexts}
	for _, c := range contexts {
		e.Requests = append(e.Requests, Request{c, " " + continuation})
	}
	return e
}

// single is an example of one answer.
func single(context, continuation string) Example {
	return Example{Requests: []Request{{context, continuation}}}
}

func before(prefix string, texts []string) []string {
	all := slices.Clone(texts)
	for i := range all {
		all[i] = prefix + all[i]
	}
	return all
}

const arcSource = "Clark et al. 2018, arXiv:1803.05457"

var arcForms = []form{
	{"question choices answerKey", func(r *row) Example {
		return choice("Question: "+r.text("question")+"\nAnswer:", r.texts("choices.text"),
			r.label("choices.label", "answerKey"))
	}},
	{foundry, func(r *row) Example { // the query is "Question: …"
		return choice(r.text("query")+"\nAnswer:", r.texts("choices"), r.index("gold"))
	}},
}

func hellaswag(r *row) Example {
	context := r.text("ctx_a") + " " + capitalize(r.text("ctx_b"))
	endings := slices.Clone(r.texts("endings"))
	for i := range endings {
		endings[i] = withoutArtifacts(endings[i])
	}
	return choice(withoutArtifacts(r.text("activity_label")+": "+context), endings, r.index("label"))
}

var brackets = regexp.MustCompile(`\[.*?\]`)

// withoutArtifacts takes out the marks that WikiHow's articles have in HellaSwag.
func withoutArtifacts(text string) string {
	text = strings.ReplaceAll(strings.TrimFunc(text, isSpace), " [title]", ". ")
	return strings.ReplaceAll(brackets.ReplaceAllString(text, ""), "  ", " ")
}

// capitalize is Python's str.capitalize: the first letter large, all others small.
func capitalize(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	return string(unicode.ToTitle(first)) + strings.ToLower(text[size:])
}

func commonsenseQA(r *row) Example {
	context := "Question: " + strings.TrimFunc(r.text("question"), isSpace)
	letters := []string{"A", "B", "C", "D", "E"}
	texts := r.texts("choices.text")
	if r.err == nil && len(texts) != len(letters) {
		r.err = fmt.Errorf("choices.text has %d texts, want %d", len(texts), len(letters))
		return Example{}
	}
	for i, text := range texts {
		context += "\n" + letters[i] + ". " + text
	}
	return choice(context+"\nAnswer:", letters, slices.Index(letters, r.text("answerKey")))
}

func copa(r *row) Example {
	connector := map[string]string{"cause": "because", "effect": "therefore"}[r.text("question")]
	premise, first, second := strings.TrimFunc(r.text("premise"), isSpace), r.text("choice1"), r.text("choice2")
	switch {
	case r.err != nil:
		return Example{}
	case connector == "":
		r.err = fmt.Errorf("question is %q, want cause or effect", r.text("question"))
		return Example{}
	case premise == "" || first == "" || second == "":
		r.err = fmt.Errorf("a premise or a choice is empty")
		return Example{}
	}
	_, period := utf8.DecodeLastRuneInString(premise)
	return choice(premise[:len(premise)-period]+" "+connector, before(" ", []string{small(first), small(second)}),
		r.index("label"))
}

// small makes the first letter of text small.
func small(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return strings.ToLower(string(first)) + text[size:]
}

func winogrande(r *row) Example {
	start, end, found := strings.Cut(r.text("sentence"), "_")
	if r.err == nil && !found {
		r.err = fmt.Errorf("the sentence has no _ where an option belongs")
	}
	answer := r.index("answer") // 1 or 2
	return schema([]string{start + r.text("option1"), start + r.text("option2")}, strings.TrimFunc(end, isSpace), answer-1)
}

// winogradSchema puts the options in the place of the pronoun.
func winogradSchema(r *row) Example {
	text := []rune(strings.ReplaceAll(r.text("text"), "  ", " "))
	pronoun, at, options := r.text("pronoun"), r.index("pronoun_loc"), r.texts("options")
	end := at + utf8.RuneCountInString(pronoun)
	if r.err == nil && (at < 2 || end > len(text) || len(options) != 2) {
		r.err = fmt.Errorf("the pronoun at %d does not lie in the text, or there are %d options and not 2", at, len(options))
	}
	if r.err != nil {
		return Example{}
	}
	var contexts []string
	for _, option := range options {
		if slices.Contains([]string{"my", "his", "her", "our", "their"}, strings.ToLower(pronoun)) {
			option += "'s"
		}
		first, _, _ := strings.Cut(strings.TrimFunc(option, isSpace), " ")
		if text[at-2] != '.' && slices.Contains(smallInside, first) {
			option = strings.ReplaceAll(option, first, strings.ToLower(first))
		}
		contexts = append(contexts, string(text[:at])+option)
	}
	return schema(contexts, string(text[end:]), r.index("label"))
}

// smallInside are the words with which an option begins that are written small inside of a sentence.
var smallInside = []string{"A", "An", "The", "She", "He", "It", "They", "My", "His", "Her", "Their"}

// isSpace is Python's str.isspace.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
