// Package examples has the examples of the pages that programs use themselves.
package examples

import _ "embed" // of the modules of Python

// Model is model.py: the models in PyTorch.
//
//go:embed model.py
var Model []byte

// Bit2 is bit2.py: the reader of packed models in Python.
//
//go:embed bit2.py
var Bit2 []byte
