package main

import (
	"testing"

	"bitnet1/shared/measure/measuretest"
)

func TestMain(m *testing.M) { measuretest.Main(m, main) }
