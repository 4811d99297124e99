package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
)

// FuzzRecord has any bytes as the record of a job and as its first output, with a checksum and without: the job is
// known, or begun anew, and nothing else happens.
func FuzzRecord(f *testing.F) {
	key := strings.Repeat("ab", 32)
	body, err := event.Marshal(event.PackWritten{Pack: artifact.Ref{Digest: key, Kind: "pack", Name: "a.bit2"}})
	if err != nil {
		f.Fatal(err)
	}
	out := Output{Kind: "pack.written", Body: body}
	record, err := event.Marshal(&Record{Stage: "pack", Key: key, Params: "{}", Outputs: []Output{out, out}})
	if err != nil {
		f.Fatal(err)
	}
	partial, err := event.Marshal(out)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record, true)
	f.Add(record, false)
	f.Add(partial, true)
	f.Add([]byte("\x82\xa4kind\xa1a\xa4body\xdf\xff\xff\xff\xff"), true) // of 4 thousand million members
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte, checksum bool) {
		if checksum {
			b = digest.AppendChecksum(b)
		}
		dir := filepath.Join(root, key[:2], key)
		if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{FileName, filepath.Join("partial", "000000.msgpack")} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		alloctest.AtMost(t, 1<<18+128*int64(len(b)), func() {
			_, _ = Find(root, key)
			r, err := Open(root, "pack", key, []byte("{}"), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			_ = r.Own()
		})
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	})
}
