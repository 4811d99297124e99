package stage

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"bitnet1/shared/run/event"
)

// A one-shot whose job another process works on says once that it waits, however long it does.
func TestAWaitingOneShotSaysOnceThatItWaits(t *testing.T) {
	t.Parallel()
	var p *performer[testParams, event.SourceAdded]
	job := task[testParams, event.SourceAdded]{run: "r", in: []event.SourceAdded{{Name: "a"}}}
	p = newPerformer(t, Spec[testParams, event.SourceAdded]{
		Name: "try", Version: "1",
		Work: func(ctx context.Context, _ *Job[testParams], _ event.SourceAdded) error {
			impatient, cancel := context.WithTimeout(ctx, 500*time.Millisecond) // ten tries
			defer cancel()
			_, err := p.performWhenFree(impatient, job) // the job is taken: it is at work here
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the second one got %v", err)
			}
			return nil
		},
	})
	var said bytes.Buffer
	p.log = slog.New(slog.NewTextHandler(&said, nil))
	if _, err := p.performWhenFree(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(said.String(), "waiting for it"); n != 1 {
		t.Errorf("said %d times that it waits:\n%s", n, &said)
	}
}
