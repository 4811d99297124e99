package pytorch

import (
	"encoding/binary"
	"math"

	"bitnet1/kernels/number/float16"
)

// encode returns the bytes that a pickle of protocol 2 holds as text, with the code points 0 to 255. The bytes of
// arrays are not decoded, because a pickle may refer to one text any number of times.
func encode(args tuple) any {
	const longest = 64
	unchanged := &object{class: name{"_codecs", "encode"}, args: args}
	if len(args) != 2 || args[1] != "latin1" {
		return unchanged
	}
	text, ok := args[0].(string)
	if !ok || len(text) > longest {
		return unchanged
	}
	var b []byte
	for _, r := range text {
		if r > 0xff {
			return unchanged
		}
		b = append(b, byte(r))
	}
	return b
}

// scalar is the number that NumPy wrote as (dtype, bytes). Other types, and numbers wider than those of Go, stay
// objects.
func scalar(args tuple) any {
	if len(args) == 2 {
		if dtype, ok := args[0].(*object); ok && dtype.class == (name{"numpy", "dtype"}) && len(dtype.args) > 0 {
			code, _ := dtype.args[0].(string)
			b, _ := args[1].([]byte)
			if v := number(code, byteOrder(dtype), b); v != nil {
				return v
			}
		}
	}
	return &object{class: name{"numpy", "scalar"}, args: args}
}

// byteOrder of a dtype is the second value of its state.
func byteOrder(dtype *object) binary.ByteOrder {
	if state, ok := dtype.state.(tuple); ok && len(state) > 1 && state[1] == ">" {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// number reads b as the element type code, in NumPy's spelling: a letter and the size in bytes. The result is nil for
// other types.
func number(code string, order binary.ByteOrder, b []byte) any {
	sizes := map[string]int{"b1": 1, "i1": 1, "u1": 1, "i2": 2, "u2": 2, "f2": 2, "i4": 4, "u4": 4, "f4": 4, "i8": 8,
		"u8": 8, "f8": 8}
	if n, ok := sizes[code]; !ok || n != len(b) {
		return nil
	}
	switch code {
	case "b1":
		return b[0] != 0
	case "i1":
		return int64(int8(b[0]))
	case "u1":
		return int64(b[0])
	case "i2":
		return int64(int16(order.Uint16(b)))
	case "u2":
		return int64(order.Uint16(b))
	case "f2":
		return float64(float16.ToFloat32(order.Uint16(b)))
	case "i4":
		return int64(int32(order.Uint32(b)))
	case "u4":
		return int64(order.Uint32(b))
	case "f4":
		return float64(math.Float32frombits(order.Uint32(b)))
	case "f8":
		return math.Float64frombits(order.Uint64(b))
	}
	if n := order.Uint64(b); code == "i8" || n <= math.MaxInt64 {
		return int64(n)
	}
	return nil
}
