package inference

import (
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/lm/bit2"
	"bitnet1/shared/lm/model"
)

// presets calls f with random models of the presets: strict ones, those that read the stream as 4 bits, and v77.
func presets(b *testing.B, f func(b *testing.B, m *Model)) {
	for _, name := range []string{"75M", "300M"} {
		strict, err := model.Preset(name)
		if err != nil {
			b.Fatal(err)
		}
		for _, kind := range []string{"strict", "stream4", "v77"} {
			c := map[string]model.Config{
				"strict": strict, "stream4": with(strict, func(c *model.Config) { c.StreamBits = 4 }), "v77": strict.V77(),
			}[kind]
			b.Run(name+"/"+kind, func(b *testing.B) {
				path := filepath.Join(b.TempDir(), "model.bit2")
				file, err := os.Create(path)
				if err != nil {
					b.Fatal(err)
				}
				if err := bit2.WriteRandom(file, c); err != nil {
					b.Fatal(err)
				}
				if err := file.Close(); err != nil {
					b.Fatal(err)
				}
				f(b, open(b, path))
			})
		}
	}
}

// Decode appends one token after 512 others, until there are 1,024. It is for profiles: task bench:inference measures
// more, in processes of their own. 300M has to decode 800 tokens per second strict and 500 with a stream of four bits,
// and 75M 2,000, on two cores with AVX-512.
func BenchmarkDecode(b *testing.B) {
	presets(b, func(b *testing.B, m *Model) {
		s := session(b, m)
		if _, err := s.Prefill(text(m.Config, 512)); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if s.Len() == 1024 {
				if err := s.Truncate(512); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := s.Decode(int32(s.Len() % m.Config.Vocab)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
	})
}

// Prefill computes a prompt of 512 tokens. 300M has to compute 450 tokens per second, and 75M 1,900.
func BenchmarkPrefill(b *testing.B) {
	presets(b, func(b *testing.B, m *Model) {
		s, prompt := session(b, m), text(m.Config, 512)
		for b.Loop() {
			if err := s.Truncate(0); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Prefill(prompt); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N*len(prompt))/b.Elapsed().Seconds(), "tokens/s")
	})
}

// DecodeTogether appends one token to each of 16 sequences.
func BenchmarkDecodeTogether(b *testing.B) {
	presets(b, func(b *testing.B, m *Model) {
		sessions, next := make([]*Session, 16), make([]int32, 16)
		for i := range sessions {
			sessions[i] = session(b, m)
			if _, err := sessions[i].Prefill(text(m.Config, 512)); err != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			for i, s := range sessions {
				if next[i] = int32(s.Len()+i) % int32(m.Config.Vocab); s.Len() == 1024 {
					if err := s.Truncate(512); err != nil {
						b.Fatal(err)
					}
				}
			}
			if _, err := m.DecodeTogether(sessions, next); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N*len(sessions))/b.Elapsed().Seconds(), "tokens/s")
	})
}
