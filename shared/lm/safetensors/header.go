package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"unicode/utf8"
)

// metadataKey is the header entry that holds strings instead of describing a tensor.
const metadataKey = "__metadata__"

// parseHeader parses the JSON header. It accepts what the safetensors library (version 0.8) accepts: white space around
// the header, unknown keys of a tensor, null metadata, and repeated names, of which the last counts.
func parseHeader(header []byte) (metadata map[string]string, tensors map[string]Info, err error) {
	if !utf8.Valid(header) {
		return nil, nil, errors.New("is not UTF-8")
	}
	metadata, tensors = map[string]string{}, map[string]Info{}
	d := json.NewDecoder(bytes.NewReader(header))
	err = object(d, func(name string) error {
		if name == metadataKey {
			clear(metadata)
			return d.Decode(&metadata)
		}
		t, err := parseInfo(d, name)
		tensors[name] = t
		return err
	})
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, errors.New("goes on after its closing brace")
	}
	return metadata, tensors, nil
}

func parseInfo(d *json.Decoder, name string) (Info, error) {
	t := Info{Name: name}
	var shape, offsets []int64
	seen := map[string]bool{}
	err := object(d, func(key string) error {
		if seen[key] {
			return fmt.Errorf("key %q appears twice", key)
		}
		seen[key] = true
		switch key {
		case "dtype":
			s, err := text(d)
			t.DType = DType(s)
			return err
		case "shape":
			return d.Decode(&shape)
		case "data_offsets":
			return d.Decode(&offsets)
		}
		var passedOver json.RawMessage
		return d.Decode(&passedOver)
	})
	switch {
	case err != nil:
		return t, fmt.Errorf("tensor %q: %w", name, err)
	case shape == nil:
		return t, fmt.Errorf("tensor %q has no shape", name)
	case len(offsets) != 2 || offsets[0] < 0 || offsets[1] < offsets[0]:
		return t, fmt.Errorf("tensor %q has data_offsets %d, want [begin, end]", name, offsets)
	}
	t.begin, t.end = offsets[0], offsets[1]
	size, err := byteSize(t.DType, shape)
	if err != nil {
		return t, fmt.Errorf("tensor %q: %w", name, err)
	}
	if size != t.end-t.begin {
		return t, fmt.Errorf("tensor %q of type %s and shape %v needs %d bytes, but its offsets span %d",
			name, t.DType, shape, size, t.end-t.begin)
	}
	t.Shape = make([]int, len(shape))
	for i, s := range shape {
		t.Shape[i] = int(s)
	}
	return t, nil
}

// byteSize is the size of a tensor. A size that cannot be addressed is an error.
func byteSize[I int | int64](dtype DType, shape []I) (int64, error) {
	bits, ok := widths[dtype]
	if !ok {
		return 0, fmt.Errorf("unknown dtype %q", dtype)
	}
	for _, s := range shape {
		if s < 0 {
			return 0, fmt.Errorf("impossible shape %v", shape)
		}
	}
	if slices.Contains(shape, 0) {
		return 0, nil
	}
	const limit = 1 << 53 // bits
	for _, s := range shape {
		if bits > limit/int64(s) {
			return 0, fmt.Errorf("shape %v overflows", shape)
		}
		bits *= int64(s)
	}
	if bits%8 != 0 {
		return 0, fmt.Errorf("shape %v of %s does not fill whole bytes", shape, dtype)
	}
	return bits / 8, nil
}

// tile checks that the tensors' byte ranges follow one another from 0 to size, and returns their names in that order.
func tile(tensors map[string]Info, size int64) ([]string, error) {
	list := slices.SortedFunc(maps.Values(tensors), func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.Name, b.Name))
	})
	names := make([]string, len(list))
	at := int64(0)
	for i, t := range list {
		if t.begin != at {
			return nil, fmt.Errorf("tensor %q begins at byte %d where %d is due (gap or overlap)", t.Name, t.begin, at)
		}
		at, names[i] = t.end, t.Name
	}
	if at != size {
		return nil, fmt.Errorf("tensors take %d bytes, but the file holds %d (truncated or extended: copy it again)",
			at, size)
	}
	return names, nil
}

// object walks a JSON object, calling value for each key with d placed at its value.
func object(d *json.Decoder, value func(key string) error) error {
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return fmt.Errorf("found %v where an object is due", t)
	}
	for d.More() {
		key, err := text(d)
		if err != nil {
			return err
		}
		if err := value(key); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func text(d *json.Decoder) (string, error) {
	t, err := d.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("found %v where a text is due", t)
	}
	return s, nil
}
