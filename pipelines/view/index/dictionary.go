package index

// dictionary numbers values that many rows have in common, in the order in which they come.
type dictionary[V comparable] struct {
	values []V
	number map[V]int
}

func newDictionary[V comparable]() dictionary[V] { return dictionary[V]{number: map[V]int{}} }

func (d *dictionary[V]) of(v V) int {
	n, known := d.number[v]
	if !known {
		n = len(d.values)
		d.number[v], d.values = n, append(d.values, v)
	}
	return n
}
