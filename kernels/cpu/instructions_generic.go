//go:build !amd64 && !arm64

package cpu

func instructionSets() []instructions { return []instructions{plainGo()} }
