package pytorch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// The values of a pickle are nil, bool, int64, float64, string, []byte, tuple, *list, *dict, and the types below.
// Nothing is imported or called. A name of Python code stays a name. A call of a name becomes a tensor if PyTorch
// writes the name for tensors, a number if NumPy writes it for scalars, and otherwise an object.
type (
	tuple []any

	list struct{ items []any }

	// dict holds the entries whose keys are strings, in the order of their first assignment. Of other entries it only
	// knows that they exist.
	dict struct {
		keys   []string
		values map[string]any
		others bool
	}

	// name is a class or function that the pickle mentions.
	name struct{ module, name string }

	// object is the result of calling an unknown name.
	object struct {
		class name
		args  tuple
		state any // set after the call: the attributes, for most classes
	}

	// storage is the bytes of tensors, which the archive holds under key.
	storage struct {
		class name
		key   string
	}

	mark struct{}
)

func (d *dict) set(key, value any) {
	k, ok := key.(string)
	if !ok {
		d.others = true
		return
	}
	if d.values == nil {
		d.values = map[string]any{}
	}
	if _, there := d.values[k]; !there {
		d.keys = append(d.keys, k)
	}
	d.values[k] = value
}

// machine executes the opcodes of a pickle. Its memory is proportional to the bytes that it has read.
type machine struct {
	in    []byte
	at    int
	stack []any
	memo  []any
}

var errTruncated = errors.New("ends in the middle")

// unpickle returns what the pickle describes.
func unpickle(in []byte) (value any, err error) {
	m := &machine{in: in}
	for {
		start := m.at
		op, err := m.take(1)
		if err == nil && op[0] == '.' {
			if len(m.stack) == 0 {
				return nil, errors.New("pickle describes nothing")
			}
			return m.stack[len(m.stack)-1], nil
		}
		if err == nil {
			err = m.step(op[0])
		}
		if err != nil {
			return nil, fmt.Errorf("pickle at byte %d: %w", start, err)
		}
	}
}

// step executes one opcode: those of protocols 2 to 5 that plain data and tensors need.
func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		_, err := m.take(1)
		return err
	case 0x95: // FRAME
		_, err := m.take(8)
		return err
	case '(':
		return m.push(mark{}, nil)
	case '0': // POP
		_, err := m.pop()
		return err
	case '1': // POP_MARK
		_, err := m.popToMark()
		return err
	case '2': // DUP
		if len(m.stack) == 0 {
			return errors.New("nothing to repeat")
		}
		return m.push(m.stack[len(m.stack)-1], nil)
	case 'N':
		return m.push(nil, nil)
	case 0x88:
		return m.push(true, nil)
	case 0x89:
		return m.push(false, nil)
	case 'K', 'M', 'J', 'G', 0x8a, 0x8b: // BININT1, BININT2, BININT, BINFLOAT, LONG1, LONG4
		return m.push(m.number(op))
	case 'X', 0x8c, 0x8d, 'U', 'T', 'C', 'B', 0x8e, 0x96: // texts and bytes
		return m.push(m.text(op))
	case '}', ']', 0x8f, ')', 't', 0x85, 0x86, 0x87, 0x91, 'a', 'e', 's', 'u', 0x90, 'b':
		return m.container(op)
	case 'q', 'r', 0x94, 'h', 'j':
		return m.remember(op)
	case 'c', 0x93:
		return m.name(op)
	case 'Q', 'R', 0x81, 0x92:
		return m.call(op)
	}
	return fmt.Errorf("opcode %#02x is none that PyTorch writes", op)
}

func (m *machine) number(op byte) (any, error) {
	size := map[byte]int{'K': 1, 'M': 2, 'J': 4, 'G': 8, 0x8a: 1, 0x8b: 4}[op]
	b, err := m.take(size)
	if err != nil {
		return nil, err
	}
	switch op {
	case 'K':
		return int64(b[0]), nil
	case 'M':
		return int64(binary.LittleEndian.Uint16(b)), nil
	case 'J':
		return int64(int32(binary.LittleEndian.Uint32(b))), nil
	case 'G':
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	}
	if b, err = m.counted(b); err != nil {
		return nil, err
	}
	if len(b) > 8 {
		return &object{class: name{"builtins", "int"}}, nil
	}
	var wide [8]byte
	if len(b) > 0 && b[len(b)-1] >= 0x80 {
		wide = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	copy(wide[:], b)
	return int64(binary.LittleEndian.Uint64(wide[:])), nil
}

// text reads a string or bytes with a length before them.
func (m *machine) text(op byte) (any, error) {
	width := map[byte]int{'X': 4, 0x8c: 1, 0x8d: 8, 'U': 1, 'T': 4, 'C': 1, 'B': 4, 0x8e: 8, 0x96: 8}[op]
	b, err := m.take(width)
	if err == nil {
		b, err = m.counted(b)
	}
	if err != nil {
		return nil, err
	}
	if op == 'C' || op == 'B' || op == 0x8e || op == 0x96 {
		return b, nil
	}
	if !utf8.Valid(b) {
		return nil, errors.New("a text is not UTF-8")
	}
	return string(b), nil
}

// counted reads as many bytes as the little-endian number before them states.
func (m *machine) counted(length []byte) ([]byte, error) {
	var wide [8]byte
	copy(wide[:], length)
	n := binary.LittleEndian.Uint64(wide[:])
	if n > uint64(len(m.in)-m.at) {
		return nil, errTruncated
	}
	return m.take(int(n))
}

func (m *machine) container(op byte) error {
	switch op {
	case '}':
		return m.push(&dict{}, nil)
	case ']', 0x8f: // a list, a set
		return m.push(&list{}, nil)
	case ')':
		return m.push(tuple{}, nil)
	case 't', 0x91: // a tuple, a frozen set
		return m.push(m.popToMark())
	case 0x85, 0x86, 0x87:
		return m.push(m.popN(int(op-0x85) + 1))
	case 'b': // BUILD: the state of an object; tensors and plain data have none that matters
		state, err := m.pop()
		if err == nil && len(m.stack) > 0 {
			if o, ok := m.stack[len(m.stack)-1].(*object); ok {
				o.state = state
			}
		}
		return err
	}
	var items tuple
	var err error
	switch op {
	case 'a':
		items, err = m.popN(1)
	case 's':
		items, err = m.popN(2)
	default:
		items, err = m.popToMark()
	}
	if err != nil {
		return err
	}
	return m.fill(items)
}

// fill adds items to the container on top of the stack.
func (m *machine) fill(items tuple) error {
	if len(m.stack) == 0 {
		return errors.New("nothing to add to")
	}
	switch c := m.stack[len(m.stack)-1].(type) {
	case *list:
		c.items = append(c.items, items...)
	case *dict:
		if len(items)%2 != 0 {
			return errors.New("a key without a value")
		}
		for i := 0; i < len(items); i += 2 {
			c.set(items[i], items[i+1])
		}
	case *object:
	default:
		return fmt.Errorf("cannot add to a %T", c)
	}
	return nil
}

// remember stores the top of the stack in the memo, or pushes a value of the memo.
func (m *machine) remember(op byte) error {
	if len(m.stack) == 0 && op != 'h' && op != 'j' {
		return errors.New("nothing to remember")
	}
	if op == 0x94 {
		m.memo = append(m.memo, m.stack[len(m.stack)-1])
		return nil
	}
	width := 1
	if op == 'r' || op == 'j' {
		width = 4
	}
	b, err := m.take(width)
	if err != nil {
		return err
	}
	var wide [4]byte
	copy(wide[:], b)
	at := int(binary.LittleEndian.Uint32(wide[:]))
	if op == 'h' || op == 'j' {
		if at >= len(m.memo) {
			return fmt.Errorf("nothing is remembered as %d", at)
		}
		return m.push(m.memo[at], nil)
	}
	if at > m.at { // the indices of a memo are consecutive
		return fmt.Errorf("something is remembered as %d, more than there can be by then", at)
	}
	if grow := at + 1 - len(m.memo); grow > 0 {
		m.memo = append(m.memo, make([]any, grow)...)
	}
	m.memo[at] = m.stack[len(m.stack)-1]
	return nil
}

// name reads the name of Python code.
func (m *machine) name(op byte) error {
	if op == 'c' {
		module, err := m.line()
		if err != nil {
			return err
		}
		own, err := m.line()
		return m.push(name{module, own}, err)
	}
	parts, err := m.popN(2)
	if err != nil {
		return err
	}
	module, ok := parts[0].(string)
	own, ok2 := parts[1].(string)
	if !ok || !ok2 {
		return errors.New("a name that is no text")
	}
	return m.push(name{module, own}, nil)
}

// call executes a call of one of PyTorch's names for tensors.
func (m *machine) call(op byte) error {
	if op == 'Q' {
		id, err := m.pop()
		if err != nil {
			return err
		}
		return m.push(persistent(id))
	}
	if op == 0x92 { // NEWOBJ_EX: named arguments too
		if _, err := m.pop(); err != nil {
			return err
		}
	}
	call, err := m.popN(2)
	if err != nil {
		return err
	}
	args, ok := call[1].(tuple)
	if !ok {
		return errors.New("a call without arguments")
	}
	return m.push(rebuild(call[0], args))
}

// line reads up to the end of a line.
func (m *machine) line() (string, error) {
	for i := m.at; i < len(m.in); i++ {
		if m.in[i] == '\n' {
			s := string(m.in[m.at:i])
			m.at = i + 1
			return s, nil
		}
	}
	return "", errTruncated
}

func (m *machine) take(n int) ([]byte, error) {
	if n > len(m.in)-m.at {
		return nil, errTruncated
	}
	b := m.in[m.at : m.at+n]
	m.at += n
	return b, nil
}

func (m *machine) push(value any, err error) error {
	if err == nil {
		m.stack = append(m.stack, value)
	}
	return err
}

func (m *machine) pop() (any, error) {
	v, err := m.popN(1)
	if err != nil {
		return nil, err
	}
	return v[0], nil
}

func (m *machine) popN(n int) (tuple, error) {
	if n > len(m.stack) {
		return nil, errors.New("takes more than there is")
	}
	top := append(tuple(nil), m.stack[len(m.stack)-n:]...)
	for _, v := range top {
		if _, ok := v.(mark); ok {
			return nil, errors.New("takes a mark for a value")
		}
	}
	m.stack = m.stack[:len(m.stack)-n]
	return top, nil
}

func (m *machine) popToMark() (tuple, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if _, ok := m.stack[i].(mark); ok {
			items := append(tuple{}, m.stack[i+1:]...)
			m.stack = m.stack[:i]
			return items, nil
		}
	}
	return nil, errors.New("there is no mark")
}
