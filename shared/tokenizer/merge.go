package tokenizer

// merger merges the pairs of one piece. Candidates wait in a heap, so that a piece of n bytes costs n log n: a document
// can be one piece of megabytes.
type merger struct {
	parts []part
	heap  []candidate
}

// part is a run of bytes that has become one token; parts are linked in order and addressed by their first byte.
type part struct {
	end        int32 // one past the last byte; 0 once merged into the part before it
	prev       int32 // -1 at the start
	generation int32 // counts the changes, to recognise candidates that are out of date
}

// candidate is a pair of neighbours that may merge.
type candidate struct {
	rank          uint32
	start         int32 // first byte of the left part
	mid           int32 // first byte of the right part
	leftG, rightG int32 // generations of the two parts when the pair was seen
}

// before orders candidates: lowest rank first, then leftmost.
func (a candidate) before(b candidate) bool {
	return a.rank < b.rank || a.rank == b.rank && a.start < b.start
}

// encode appends the tokens of p, a piece that is no token itself.
func (m *merger) encode(dst []uint32, p []byte, ranks map[string]uint32) []uint32 {
	m.parts, m.heap = m.parts[:0], m.heap[:0]
	for i := range p {
		m.parts = append(m.parts, part{end: int32(i + 1), prev: int32(i - 1)})
	}
	for i := 0; i+1 < len(p); i++ {
		m.propose(p, int32(i), ranks)
	}
	for len(m.heap) > 0 {
		c := m.pop()
		left, right := &m.parts[c.start], &m.parts[c.mid]
		if left.generation != c.leftG || right.generation != c.rightG {
			continue
		}
		left.end = right.end
		left.generation++
		right.generation++
		if int(left.end) < len(p) {
			m.parts[left.end].prev = c.start
			m.propose(p, c.start, ranks)
		}
		if left.prev >= 0 {
			m.propose(p, left.prev, ranks)
		}
	}
	for i := 0; i < len(p); i = int(m.parts[i].end) {
		dst = append(dst, ranks[string(p[i:m.parts[i].end])])
	}
	return dst
}

// propose adds the pair of the part at start and its right neighbour, if there is one and together they are a token.
func (m *merger) propose(p []byte, start int32, ranks map[string]uint32) {
	mid := m.parts[start].end
	if int(mid) >= len(p) {
		return
	}
	right := m.parts[mid]
	if rank, ok := ranks[string(p[start:right.end])]; ok {
		m.push(candidate{rank: rank, start: start, mid: mid, leftG: m.parts[start].generation, rightG: right.generation})
	}
}

func (m *merger) push(c candidate) {
	m.heap = append(m.heap, c)
	i := len(m.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !c.before(m.heap[up]) {
			break
		}
		m.heap[i] = m.heap[up]
		i = up
	}
	m.heap[i] = c
}

func (m *merger) pop() candidate {
	top, n := m.heap[0], len(m.heap)-1
	c := m.heap[n]
	m.heap = m.heap[:n]
	i := 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && m.heap[child+1].before(m.heap[child]) {
			child++
		}
		if !m.heap[child].before(c) {
			break
		}
		m.heap[i] = m.heap[child]
		i = child
	}
	if n > 0 {
		m.heap[i] = c
	}
	return top
}
