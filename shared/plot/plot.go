// Package plot draws figures fit for a paper. A figure is described once and written as SVG and as PNG, with the same
// sizes, fonts and colours. Figures are as wide as a column of a paper, their fonts have at least 7 points, and their
// colours differ for the colour-blind, too. Equal figures have equal bytes. The package knows no runs.
package plot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"html"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Figure is a picture that knows its size and draws itself: Lines, Bars, HeatMaps, or a Stack of them.
type Figure interface {
	size() (width, height vg.Length)
	draw(draw.Canvas) error
}

// Stack is figures above each other, the first on top.
type Stack []Figure

func (s Stack) size() (width, height vg.Length) {
	for _, f := range s {
		w, h := f.size()
		width, height = max(width, w), height+h
	}
	return width, height
}

func (s Stack) draw(c draw.Canvas) error {
	top := vg.Length(0)
	for _, f := range s {
		w, h := f.size()
		if err := f.draw(draw.Crop(c, 0, w-c.Size().X, c.Size().Y-top-h, -top)); err != nil {
			return err
		}
		top += h
	}
	return nil
}

// Widths of figures.
const (
	Column = 8.5 * vg.Centimeter // of a paper with two columns
	Page   = 17.5 * vg.Centimeter
)

// Width is how wide a figure is.
func Width(f Figure) vg.Length {
	width, _ := f.size()
	return width
}

// Sizes of fonts, in points.
const (
	textSize  = 8
	smallSize = 7 // of numbers on axes
)

// dpi is the resolution of a PNG, which journals ask for.
const dpi = 300

// Palette is eight colours that differ for the colour-blind, too (Okabe and Ito, 2008), as #rrggbb.
var Palette = [...]string{"#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000", "#b0a020"}

// Gray is the colour of what is compared with, such as the loss of a model that knows nothing.
const Gray = -1

// colorOf is the i-th colour of the palette, from the first again after the last, or gray.
func colorOf(i int) color.Color {
	if i == Gray {
		return color.Gray{Y: 110}
	}
	var c color.RGBA
	_, _ = fmt.Sscanf(Palette[i%len(Palette)], "#%02x%02x%02x", &c.R, &c.G, &c.B)
	c.A = 0xff
	return c
}

var gridStyle = draw.LineStyle{Color: color.Gray{Y: 225}, Width: 0.5}

// textStyle is that of text whose anchor is at the given alignments.
func textStyle(size vg.Length, c color.Color, x draw.XAlignment, y draw.YAlignment) draw.TextStyle {
	return draw.TextStyle{Color: c, Font: font.Font{Typeface: "Liberation", Variant: "Sans", Size: size},
		XAlign: x, YAlign: y, Handler: plot.DefaultTextHandler}
}

// PNG draws a figure on white paper, with 300 points to the inch.
func PNG(f Figure) ([]byte, error) {
	w, h := f.size()
	canvas := vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(color.White))
	if err := f.draw(draw.New(canvas)); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: canvas}).WriteTo(&b); err != nil {
		return nil, err
	}
	return withResolution(b.Bytes()), nil
}

// withResolution adds the chunk pHYs behind the header of a PNG: without it, programs take 72 or 96 points to the inch
// and draw the figure wider than a page.
func withResolution(picture []byte) []byte {
	const header = 8 + 25 // the signature, and the chunk IHDR
	const perMeter = dpi * 10000 / 254
	chunk := binary.BigEndian.AppendUint32([]byte("pHYs"), perMeter)
	chunk = append(binary.BigEndian.AppendUint32(chunk, perMeter), 1) // 1: in meters
	out := binary.BigEndian.AppendUint32(slices.Clone(picture[:header]), uint32(len(chunk)-4))
	out = binary.BigEndian.AppendUint32(append(out, chunk...), crc32.ChecksumIEEE(chunk))
	return append(out, picture[header:]...)
}

// SVG draws a figure without a background. The title and the description are for those who cannot see it.
func SVG(f Figure, title, description string) ([]byte, error) {
	w, h := f.size()
	canvas := vgsvg.New(w, h)
	if err := f.draw(draw.New(canvas)); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	_, body, found := strings.Cut(b.String(), "<svg")
	_, body, closed := strings.Cut(body, ">")
	if !found || !closed {
		return nil, errors.New("drawing a figure: what was drawn is not SVG")
	}
	for _, fold := range []struct{ long, short string }{ // half of the bytes
		{"font-family:Liberation Sans;font-variant:normal;font-weight:normal;font-style:normal;",
			"font-family:Liberation Sans,Arial,Helvetica,sans-serif;"},
		{"\n\tstyle=", " style="}, {"\n\t/>", "/>"},
	} {
		body = strings.ReplaceAll(body, fold.long, fold.short)
	}
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.5gpt" height="%.5gpt" viewBox="0 0 %.5g %.5g" `+
		`role="img"><title>%s</title><desc>%s</desc>`, w.Points(), h.Points(), w.Points(), h.Points(),
		html.EscapeString(title), html.EscapeString(description))
	return []byte(head + body), nil
}

// Write draws a figure into a file whose ending is the picture's format, .png or .svg.
func Write(file string, f Figure, title string) error {
	var b []byte
	var err error
	switch filepath.Ext(file) {
	case ".png":
		b, err = PNG(f)
	case ".svg":
		b, err = SVG(f, title, "")
	default:
		err = FormatError{file}
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// FormatError says that the name of a file tells no format of pictures.
type FormatError struct{ File string }

func (e FormatError) Error() string {
	return e.File + ": the name of a picture must end in .png or .svg"
}
