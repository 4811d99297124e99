package bus

import (
	"slices"
	"testing"
)

// What Environ puts into an environment, WithoutAddress leaves out, and nothing else.
func TestWithoutAddress(t *testing.T) {
	a := Address{URL: "nats://a", User: "b", Password: "c", Token: "d", Creds: "e", NKey: "f", CA: "g", Cert: "h",
		Key: "i", Replicas: "3"}
	others := []string{"PATH=/bin", "NATSUKI=x", "BITNET1_DATA=NATS_URL"}
	given := slices.Concat(others[:1], a.Environ(), others[1:])
	if len(given) != len(others)+len(a.variables()) {
		t.Fatalf("the environment lacks variables: %q", given)
	}
	before := slices.Clone(given)
	if got := WithoutAddress(given); !slices.Equal(got, others) {
		t.Errorf("left are %q, want %q", got, others)
	}
	if !slices.Equal(given, before) {
		t.Errorf("the environment that was given is now %q", given)
	}
}
