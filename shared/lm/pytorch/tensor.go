package pytorch

import (
	"errors"
	"fmt"

	"bitnet1/shared/lm/safetensors"
)

// tensor is a view of a storage.
type tensor struct {
	storage storage
	offset  int64 // in elements
	shape   []int
	stride  []int64
}

// dtypes maps PyTorch's storage classes to element types.
var dtypes = map[string]safetensors.DType{
	"DoubleStorage": safetensors.F64, "FloatStorage": safetensors.F32,
	"HalfStorage": safetensors.F16, "BFloat16Storage": safetensors.BF16,
	"LongStorage": safetensors.I64, "IntStorage": safetensors.I32, "ShortStorage": safetensors.I16,
	"CharStorage": safetensors.I8, "ByteStorage": safetensors.U8,
}

// persistent reads a storage as PyTorch writes it: ("storage", class, key, device, elements).
func persistent(id any) (any, error) {
	parts, ok := id.(tuple)
	if !ok || len(parts) != 5 || parts[0] != "storage" {
		return nil, errors.New("a reference to something that is no storage")
	}
	class, ok := parts[1].(name)
	key, ok2 := parts[2].(string)
	if !ok || !ok2 {
		return nil, errors.New("a storage without class or key")
	}
	return storage{class: class, key: key}, nil
}

// rebuild is the result of calling callable.
func rebuild(callable any, args tuple) (any, error) {
	function, ok := callable.(name)
	if !ok {
		return &object{args: args}, nil
	}
	switch function {
	case name{"collections", "OrderedDict"}, name{"collections", "defaultdict"}, name{"builtins", "dict"}:
		return &dict{}, nil
	case name{"torch._utils", "_rebuild_tensor_v2"}:
		return rebuildTensor(args)
	case name{"torch._utils", "_rebuild_parameter"}, name{"torch._utils", "_rebuild_parameter_with_state"}:
		if len(args) == 0 {
			return nil, errors.New("a parameter without a tensor")
		}
		return args[0], nil
	case name{"torch._tensor", "_rebuild_from_type_v2"}: // (function, class, its arguments, state)
		if len(args) < 3 {
			return nil, errors.New("a tensor of a class of its own without arguments")
		}
		if inner, ok := args[2].(tuple); ok && args[0] == any(name{"torch._utils", "_rebuild_tensor_v2"}) {
			return rebuildTensor(inner)
		}
	case name{"_codecs", "encode"}:
		return encode(args), nil
	case name{"numpy._core.multiarray", "scalar"}, name{"numpy.core.multiarray", "scalar"}:
		return scalar(args), nil
	}
	return &object{class: function, args: args}, nil
}

// rebuildTensor makes a tensor of the arguments (storage, offset, size, stride, …).
func rebuildTensor(args tuple) (any, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("a tensor of %d arguments", len(args))
	}
	const mostDimensions = 64 // PyTorch's own limit
	if size, ok := args[2].(tuple); ok && len(size) > mostDimensions {
		return nil, fmt.Errorf("a tensor of %d dimensions", len(size))
	}
	s, ok := args[0].(storage)
	offset, ok2 := args[1].(int64)
	size, ok3 := integers(args[2])
	stride, ok4 := integers(args[3])
	if !ok || !ok2 || !ok3 || !ok4 || offset < 0 || len(size) != len(stride) {
		return nil, errors.New("a tensor whose storage, offset, size or strides make no sense")
	}
	t := &tensor{storage: s, offset: offset, stride: stride}
	for _, n := range size {
		if n < 0 || n > 1<<40 {
			return nil, fmt.Errorf("a tensor of impossible shape %v", size)
		}
		t.shape = append(t.shape, int(n))
	}
	return t, nil
}

func integers(v any) ([]int64, bool) {
	items, ok := v.(tuple)
	var out []int64
	for _, item := range items {
		n, isInt := item.(int64)
		ok = ok && isInt
		out = append(out, n)
	}
	return out, ok
}

// elements is the number of elements. More than a file of most bytes can hold is an error.
func (t *tensor) elements(most int64) (int64, error) {
	n := int64(1)
	for _, s := range t.shape {
		if s == 0 {
			return 0, nil
		}
		if n > most/int64(s) {
			return 0, fmt.Errorf("shape %v is larger than the file", t.shape)
		}
		n *= int64(s)
	}
	return n, nil
}

// contiguous tells whether the elements are row-major without gaps.
func (t *tensor) contiguous() bool {
	due := int64(1)
	for i := len(t.shape) - 1; i >= 0; i-- {
		if t.shape[i] != 1 && t.stride[i] != due {
			return false
		}
		due *= int64(t.shape[i])
	}
	return true
}
