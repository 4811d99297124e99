package protocol

import (
	"errors"
	"strings"
	"testing"
)

// No schedule of faults breaks a promise, and from every state the work can be done.
func TestNoScheduleBreaksAPromise(t *testing.T) {
	for name, c := range map[string]Config{
		"two events, two workers": {Events: 2, Outputs: 2, Workers: 2, Crashes: 2, Stalls: 1},
		"crashes":                 {Events: 1, Outputs: 2, Workers: 2, Crashes: 4, Stalls: 2, Restarts: 1},
		"stalls":                  {Events: 1, Outputs: 2, Workers: 2, Crashes: 1, Stalls: 3, Restarts: 1},
		"power cuts":              {Events: 1, Outputs: 2, Workers: 2, Crashes: 1, Cuts: 2, Losses: 1},
		"losses":                  {Events: 1, Outputs: 2, Workers: 2, Stalls: 1, Losses: 2, Restarts: 1, Replies: 1},
		"time": {Events: 1, Outputs: 2, Workers: 2, Crashes: 1, Stalls: 1, Losses: 1, Restarts: 1,
			Replies: 1, Forgets: 2},
		"one job of two runs": {Events: 2, Same: true, Outputs: 2, Workers: 2, Crashes: 1, Stalls: 1, Cuts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			states, err := Check(New(c))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states", states)
		})
	}
}

// Every rule of the protocol is there for something: without it the checker finds a schedule that breaks a promise.
func TestEveryRuleIsNeeded(t *testing.T) {
	all := Config{Events: 1, Outputs: 1, Workers: 2, Crashes: 1, Stalls: 1, Cuts: 1, Losses: 1, Restarts: 1, Replies: 1,
		Forgets: 1}
	for rule, promise := range map[Rule]string{
		Lock:          "workers are at the job",
		ArtifactFirst: "recorded without its artifact",
		RecordFirst:   "in the journal and not recorded",
		JournalFirst:  "announced and not in the journal",
		AckLast:       "acknowledged, and its answer is not kept",
		AnnounceAgain: "acknowledged, and its answer is not kept",
		Conditional:   "announced twice",
		NoticeTime:    "announced twice",
		Restore:       "can no longer be done",
		SyncArtifacts: "without its artifact",
		SyncRecords:   "not recorded",
		SyncJournal:   "announced and not in the journal",
	} {
		c := all
		c.Without = rule
		_, err := Check(New(c))
		var failure *Failure
		if !errors.As(err, &failure) || !strings.Contains(failure.Promise.Error(), promise) {
			t.Errorf("without rule %d: %v, want %q", rule, err, promise)
			continue
		}
		t.Logf("without rule %d: %v", rule, failure)
	}
	if rules := int(SyncJournal); rules != 12 {
		t.Errorf("%d rules, and 12 are tried", rules)
	}
}
