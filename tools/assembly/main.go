// Command assembly writes the inner loops of kernels/cpu for amd64:
//
//	cd tools/assembly && go run . -out ../../kernels/cpu/loops_amd64.s -stubs ../../kernels/cpu/loops_amd64.go -pkg cpu
//
// What every function computes is written in Go beside its caller (the name without the instruction set, with Go at its
// end); a test compares the two, bit by bit. Floating-point products and sums round separately everywhere.
package main

import . "github.com/mmcloughlin/avo/build"

func main() {
	ConstraintExpr("amd64")
	makeTables()
	lookup()
	arrange()
	rounding()
	products()
	vectors()
	network()
	wide()
	Generate()
}
