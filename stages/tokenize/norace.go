//go:build !race

package main

// limited says that the system is asked to bound the memory of a decoding process.
const limited = true
