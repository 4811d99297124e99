//go:build !amd64

package cpu

func instructionSets() []instructions { return []instructions{plainGo()} }
