//go:build race

package main

// The race detector maps terabytes that it never fills, and RLIMIT_DATA counts them.
const limited = false
