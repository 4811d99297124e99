package pipelinefile

import (
	"slices"
	"strings"
	"testing"
)

func TestServingIsGivenInTheFileAndByFlags(t *testing.T) {
	f, err := Load(file(t, "stages: {tokenize: {}, train: {}}\ndeadline: {train: 2h}\nattempts: {train: 2}\n"+
		"metrics: {tokenize: '127.0.0.1:9100'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := func(stage string, worker int, flags ...string) {
		t.Helper()
		if got := f.ServingFlags(stage, worker); !slices.Equal(got, flags) {
			t.Errorf("%s, worker %d: %v, want %v", stage, worker, got, flags)
		}
	}
	want("train", 0, "--deadline=2h", "--attempts=2")
	want("tokenize", 0, "--metrics=127.0.0.1:9100")
	want("tokenize", 3, "--metrics=127.0.0.1:9103")
	for key, text := range map[string]string{"deadline": "90s", "attempts": "tokenize=7", "metrics": "train=[::1]:80"} {
		if err := f.SetServing(key, text); err != nil {
			t.Error(err)
		}
	}
	want("train", 1, "--deadline=90s", "--attempts=2", "--metrics=[::1]:81")
	want("tokenize", 0, "--deadline=90s", "--attempts=7", "--metrics=127.0.0.1:9100")
	for key, text := range map[string]string{"deadline": "train=-1s", "attempts": "0", "metrics": "127.0.0.1:9100"} {
		if err := f.SetServing(key, text); err == nil || !strings.Contains(err.Error(), "--"+key+" "+text) {
			t.Errorf("--%s %s: %v", key, text, err)
		}
	}
	if err := f.SetServing("deadline", "trian=1s"); err == nil || !strings.Contains(err.Error(), `did you mean "train"`) {
		t.Error(err)
	}
	for _, text := range []string{"deadline: {trian: 1s}", "deadline: {train: soon}", "deadline: 5",
		"attempts: {train: x}", "metrics: {train: here}"} {
		if _, err := Load(file(t, "stages: {train: {}}\n"+text+"\n")); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}
