//go:build race

package main

import "os"

// With the race detector a program sleeps for a second before it ends. These tests start hundreds of programs, so they
// turn that sleep off.
func init() {
	buildFlags, buildEnv = []string{"-race"}, []string{"CGO_ENABLED=1"}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
}
