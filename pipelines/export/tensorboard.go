package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"path"

	"google.golang.org/protobuf/encoding/protowire"

	"bitnet1/shared/measure/history"
)

// eventsFile is the event file of a run, in a folder of its own: TensorBoard shows a folder as a run.
func eventsFile(run *history.Run) string {
	return path.Join(run.ID, fmt.Sprintf("events.out.tfevents.%d.bitnet1", run.Started/1000))
}

// Numbers of fields, of tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
const (
	eventWallTime    = 1 // double, seconds since 1970
	eventStep        = 2 // int64
	eventFileVersion = 3 // string
	eventSummary     = 5 // Summary

	summaryValue = 1 // repeated Value

	valueTag    = 1 // string
	valueSimple = 2 // float
)

// writeEvents writes an event file: a version, then an event for each number that was found with the run's own
// parameters. The time of an event is when the run began and how long it has trained; so equal runs make equal files.
func writeEvents(w io.Writer, run *history.Run, all []metric) error {
	began := float64(run.Started) / 1000
	version := protowire.AppendTag(wallTime(began), eventFileVersion, protowire.BytesType)
	if err := writeRecord(w, protowire.AppendString(version, "brain.Event:2")); err != nil {
		return err
	}
	last := 0.0
	for _, m := range all {
		if m.Parameters != "" {
			continue
		}
		if !math.IsNaN(m.Seconds) {
			last = m.Seconds
		}
		if err := writeRecord(w, m.event(began+last)); err != nil {
			return err
		}
	}
	return nil
}

// wallTime begins an event of a time, in seconds since 1970.
func wallTime(seconds float64) []byte {
	b := protowire.AppendTag(nil, eventWallTime, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, math.Float64bits(seconds))
}

// tag is the metric's name in TensorBoard, which groups by what stands before the first slash.
func (m metric) tag() string {
	if m.Layer >= 0 {
		return fmt.Sprintf("%s/L%d.H%d", m.Name, m.Layer, m.Head)
	}
	return m.Name
}

// event is the metric as an event of a time.
func (m metric) event(at float64) []byte {
	var value []byte
	value = protowire.AppendTag(value, valueTag, protowire.BytesType)
	value = protowire.AppendString(value, m.tag())
	value = protowire.AppendTag(value, valueSimple, protowire.Fixed32Type)
	value = protowire.AppendFixed32(value, math.Float32bits(float32(m.Value)))
	summary := protowire.AppendBytes(protowire.AppendTag(nil, summaryValue, protowire.BytesType), value)

	b := protowire.AppendTag(wallTime(at), eventStep, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(m.Step))
	b = protowire.AppendTag(b, eventSummary, protowire.BytesType)
	return protowire.AppendBytes(b, summary)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is the checksum of TFRecord: a CRC of bytes that hold CRCs would be weak, so the CRC is rotated and moved.
func masked(b []byte) uint32 {
	crc := crc32.Checksum(b, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}

// writeRecord writes a record of a TFRecord file: the length, its checksum, the bytes, their checksum.
func writeRecord(w io.Writer, data []byte) error {
	record := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	record = binary.LittleEndian.AppendUint32(record, masked(record))
	record = append(record, data...)
	record = binary.LittleEndian.AppendUint32(record, masked(data))
	_, err := w.Write(record)
	return err
}
