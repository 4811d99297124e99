package event

import (
	"fmt"
	"math"
)

// Plain decodes a msgpack map of any kind into a value that encoding/json can print. Numbers that JSON does not have,
// which a diverging loss becomes, are replaced by their names: "NaN", "+Inf", "-Inf".
func Plain(b []byte) (map[string]any, error) {
	var v map[string]any
	if err := Unmarshal(b, &v); err != nil {
		return nil, err
	}
	printable(v)
	return v, nil
}

func printable(v any) any {
	switch v := v.(type) {
	case float32:
		return printable(float64(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	case map[string]any:
		for key, item := range v {
			v[key] = printable(item)
		}
	case []any:
		for i, item := range v {
			v[i] = printable(item)
		}
	}
	return v
}
