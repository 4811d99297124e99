package trainlog

import (
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/alloctest"
)

// FuzzRead reads any bytes as a training log.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"event":"step","step":10,"tokens":640,"train_bpc":5.5,"lr":0.003}` + "\n" +
		`{"event":"checkpoint","step":10,"val_bpc":null,"best":true}` + "\n" + `{"event":"step","st`))
	f.Add([]byte(`{"event":"step","step":1e99}` + "\n\n[]"))
	path := filepath.Join(f.TempDir(), FileName)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		alloctest.AtMost(t, 4<<20+128*int64(len(b)), func() { _, _ = Read(path) })
	})
}
