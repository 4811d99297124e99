//go:build race

package main

// The programs are built as the tests are.
func init() { buildFlags = []string{"-race"}; buildEnv = []string{"CGO_ENABLED=1"} }
