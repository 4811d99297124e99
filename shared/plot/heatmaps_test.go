package plot

import (
	"bytes"
	"encoding/binary"
	"image/png"
	"regexp"
	"strconv"
	"testing"
)

// The numbers beside the scale of low maps do not overlap.
func TestNumbersOfALowScale(t *testing.T) {
	maps := HeatMaps{Scale: Axis{Label: "HDR, %", Max: 56}, Maps: []HeatMap{{Title: "a", Values: [][]float64{{14, 53}}}}}
	drawn, err := SVG(maps, "", "")
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`<text x="([0-9.]+)" y="(-[0-9.]+)"[^>]*>[0-9]+</text>`)
	all := number.FindAllStringSubmatch(string(drawn), -1)
	var heights []float64
	for _, n := range all {
		y, err := strconv.ParseFloat(n[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		if n[1] == all[len(all)-1][1] { // it is beside the scale, as the last one is
			heights = append(heights, y)
		}
	}
	for i := 1; i < len(heights); i++ {
		if heights[i-1]-heights[i] < smallSize {
			t.Errorf("numbers overlap: they are at %g", heights)
		}
	}
	if len(heights) < 2 {
		t.Errorf("%d numbers at the scale", len(heights))
	}
}

// A PNG says how large it is on paper, and can be read.
func TestResolutionOfPNG(t *testing.T) {
	b, err := PNG(HeatMaps{Scale: Axis{Label: "x", Max: 1}, Maps: []HeatMap{{Values: [][]float64{{1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(b)); err != nil {
		t.Error(err)
	}
	at := bytes.Index(b, []byte("pHYs"))
	if at < 0 || binary.BigEndian.Uint32(b[at+4:]) != 11811 || b[at+12] != 1 {
		t.Errorf("no 11811 points to the metre at %d", at)
	}
}
