package event

import (
	"maps"
	"slices"

	"github.com/vmihailenco/msgpack/v5"
)

// SortedMap is a map that is written in the order of its keys: package msgpack sorts those of maps of plain values
// alone, and the bytes of an event are its identity.
type SortedMap[V any] map[string]V

// EncodeMsgpack implements msgpack.CustomEncoder.
func (m SortedMap[V]) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeMapLen(len(m)); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if err := e.EncodeString(key); err != nil {
			return err
		}
		if err := e.Encode(m[key]); err != nil {
			return err
		}
	}
	return nil
}
