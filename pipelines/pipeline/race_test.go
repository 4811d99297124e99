//go:build race

package main

import "os"

// The programs are built as the tests are. One that was built with the race detector sleeps for a second before it
// ends, unless it is told otherwise: these tests start hundreds.
func init() {
	buildFlags, buildEnv = []string{"-race"}, []string{"CGO_ENABLED=1"}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
}
