package tokenizer

import (
	"bytes"
	"slices"
)

// prefixTree finds the longest token that a text begins with. A node is a beginning of tokens. Nodes are numbered from
// the root on, shorter beginnings first, so that the children of a node are consecutive: those of node i begin at
// nodes[i].children and end where those of node i+1 begin. Every byte is a token; node 1+b stands for byte b.
type prefixTree struct {
	nodes  []treeNode
	labels []byte // the last byte of each node

	// second is the node of the first two bytes of a text, or 0. Nodes of single bytes have so many children that
	// searching them took half of the time.
	second []uint32
}

type treeNode struct {
	children uint32
	token    uint32 // that ends here, or none
}

// newPrefixTree makes the tree of tokens, which must contain all single bytes.
func newPrefixTree(v *vocabulary, ids []uint32) *prefixTree {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b uint32) int { return bytes.Compare(v.token(a), v.token(b)) })
	t := &prefixTree{nodes: []treeNode{{token: none}}, labels: []byte{0}, second: make([]uint32, 1<<16)}
	front, depth := [][]uint32{ids}, 0 // for each node of a depth, the tokens that begin with it
	for node := 0; len(front) > 0; depth++ {
		var next [][]uint32
		for _, rest := range front {
			t.nodes[node].children = uint32(len(t.nodes))
			if len(v.token(rest[0])) == depth { // sorted, it is the first
				t.nodes[node].token = rest[0]
				rest = rest[1:]
			}
			for len(rest) > 0 {
				b, n := v.token(rest[0])[depth], 1
				for n < len(rest) && v.token(rest[n])[depth] == b {
					n++
				}
				t.nodes, t.labels = append(t.nodes, treeNode{token: none}), append(t.labels, b)
				next = append(next, rest[:n])
				rest = rest[n:]
			}
			node++
		}
		front = next
	}
	t.nodes = append(t.nodes, treeNode{children: uint32(len(t.nodes))}) // where the last node's children end
	t.nodes, t.labels = slices.Clip(t.nodes), slices.Clip(t.labels)
	for first := range 256 {
		for node := t.nodes[1+first].children; node < t.nodes[2+first].children; node++ {
			t.second[first<<8|int(t.labels[node])] = node
		}
	}
	return t
}

// longest is the longest token that text begins with. text must not be empty.
func (t *prefixTree) longest(text []byte) uint32 {
	found := t.nodes[1+uint32(text[0])].token
	if len(text) == 1 {
		return found
	}
	node := t.second[int(text[0])<<8|int(text[1])]
	if node == 0 {
		return found
	}
	if id := t.nodes[node].token; id != none {
		found = id
	}
	for _, b := range text[2:] {
		first := t.nodes[node].children
		i := bytes.IndexByte(t.labels[first:t.nodes[node+1].children], b)
		if i < 0 {
			break
		}
		node = first + uint32(i)
		if id := t.nodes[node].token; id != none {
			found = id
		}
	}
	return found
}

// pair appends the tokens of a text of two bytes: one token of both, or two. The tree contains every token of two
// bytes, because two single bytes always merge.
func (t *prefixTree) pair(dst []uint32, a, b byte) []uint32 {
	if id := t.nodes[t.second[int(a)<<8|int(b)]].token; id != none {
		return append(dst, id)
	}
	return append(dst, t.nodes[1+int(a)].token, t.nodes[1+int(b)].token)
}
