package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
)

// swapped says what an operator is replaced by.
var swapped = map[token.Token][]token.Token{
	token.ADD: {token.SUB}, token.SUB: {token.ADD}, token.MUL: {token.QUO}, token.QUO: {token.MUL}, token.REM: {token.QUO},
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR}, token.GTR: {token.GEQ, token.LEQ},
	token.GEQ: {token.GTR, token.LSS},
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL}, token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.ADD_ASSIGN: {token.SUB_ASSIGN}, token.SUB_ASSIGN: {token.ADD_ASSIGN}, token.MUL_ASSIGN: {token.QUO_ASSIGN},
	token.AND: {token.OR}, token.OR: {token.AND}, token.XOR: {token.AND}, token.SHL: {token.SHR}, token.SHR: {token.SHL},
}

// spoken are functions whose arguments are for people; that words are wrong no test of behaviour tells. tidying are
// those whose absence shows only in what a process holds.
var (
	spoken  = []string{"Errorf", "Permanentf", "Note", "New", "Info", "Warn", "Error", "Debug", "Sprintf", "Usagef"}
	tidying = []string{"Close", "close", "Abort", "Lock", "Unlock", "stop", "cancel", "Stop", "Done", "clear", "Sync",
		"sync"}
)

// generated are all faults that the operators make of a file.
func (t *tree) generated(file string) ([]fault, error) {
	source, err := t.source(file)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	m := maker{set: set, file: file, source: source}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
			ast.Inspect(f.Body, m.visit)
		}
	}
	return m.faults, nil
}

type maker struct {
	set    *token.FileSet
	file   string
	source []byte
	faults []fault
}

func (m *maker) add(from, to token.Pos, text string) {
	m.faults = append(m.faults, fault{file: m.file, from: m.set.Position(from).Offset, to: m.set.Position(to).Offset,
		text: text})
}

func (m *maker) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CallExpr:
		name := called(n)
		switch name {
		case "min":
			m.add(n.Fun.Pos(), n.Fun.End(), "max")
		case "max":
			m.add(n.Fun.Pos(), n.Fun.End(), "min")
		}
		return !slices.Contains(spoken, name)
	case *ast.BinaryExpr:
		m.swap(n.OpPos, n.Op)
	case *ast.AssignStmt:
		m.swap(n.TokPos, n.Tok)
		if n.Tok == token.ASSIGN && !blank(n.Lhs) {
			m.add(n.Pos(), n.End(), "")
		}
	case *ast.IncDecStmt:
		m.add(n.TokPos, n.End(), map[token.Token]string{token.INC: "--", token.DEC: "++"}[n.Tok])
	case *ast.ExprStmt:
		if call, ok := n.X.(*ast.CallExpr); ok && !slices.Contains(spoken, called(call)) &&
			!slices.Contains(tidying, called(call)) {
			m.add(n.Pos(), n.End(), "")
		}
	case *ast.IfStmt:
		if c, ok := n.Cond.(*ast.BinaryExpr); !ok || c.Op != token.EQL && c.Op != token.NEQ { // these are turned round anyway
			m.add(n.Cond.Pos(), n.Cond.End(), "!("+m.text(n.Cond)+")")
		}
	case *ast.ReturnStmt:
		return !fails(n) // what stands beside an error means nothing
	case *ast.BasicLit:
		if v, err := strconv.Atoi(n.Value); err == nil && n.Kind == token.INT {
			m.add(n.Pos(), n.End(), strconv.Itoa(v+1))
		}
	case *ast.Ident:
		switch n.Name {
		case "true":
			m.add(n.Pos(), n.End(), "false")
		case "false":
			m.add(n.Pos(), n.End(), "true")
		}
	}
	return true
}

// swap replaces an operator by each that it is confused with.
func (m *maker) swap(at token.Pos, op token.Token) {
	for _, other := range swapped[op] {
		m.add(at, at+token.Pos(len(op.String())), other.String())
	}
}

func (m *maker) text(n ast.Node) string {
	return string(m.source[m.set.Position(n.Pos()).Offset:m.set.Position(n.End()).Offset])
}

// called is the name of a call's function or method.
func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// fails says whether a return statement gives an error beside other results.
func fails(n *ast.ReturnStmt) bool {
	if len(n.Results) < 2 {
		return false
	}
	switch last := n.Results[len(n.Results)-1].(type) {
	case *ast.Ident:
		return last.Name == "err"
	case *ast.CallExpr:
		return slices.Contains(spoken, called(last))
	}
	return false
}

func blank(list []ast.Expr) bool {
	return !slices.ContainsFunc(list, func(e ast.Expr) bool {
		name, ok := e.(*ast.Ident)
		return !ok || name.Name != "_"
	})
}
