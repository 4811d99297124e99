package record

import (
	"fmt"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// Gap says what the journal of a run lacks although the run's other events or the records of its jobs speak of it; ""
// where nothing is missing. listeners are the stages that answer each kind of event. An event server may have lost any
// event, so a run is whole only when its files say so.
func Gap(store *artifact.Store, j journal.Journal, run string, listeners map[string][]string) (string, error) {
	events, err := j.All(run)
	if err != nil {
		return "", err
	}
	kept := map[string]bool{}
	answered := map[string]bool{} // listener and event
	var answers []event.JobFinished
	for _, e := range events {
		kept[e.ID] = true
		if e.Kind != (event.JobFinished{}).Kind() {
			continue
		}
		if f, err := event.Into[event.JobFinished](e); err == nil && f.Outcome != event.Failed {
			answered[f.Listener+" "+f.Input] = true
			answers = append(answers, f)
		}
	}
	for _, e := range events {
		if len(e.Overrides) > 0 {
			continue // of a job that its user did with other parameters than the run's
		}
		for _, listener := range listeners[e.Kind] {
			if !answered[listener+" "+e.ID] {
				return fmt.Sprintf("%s has not answered %s %s", listener, e.Kind, digest.Short(e.ID)), nil
			}
		}
	}
	for _, f := range answers {
		r, err := Find(Root(store), f.Key)
		if err != nil {
			continue // the record is gone, or the stage keeps none
		}
		for _, out := range r.Outputs {
			e, err := event.Wrap(run, f.Listener, f.Key, event.Part{}, out.Kind, out.Body)
			if err == nil && !kept[e.ID] {
				return fmt.Sprintf("%s has made %s %s, which is not in the journal", f.Listener, e.Kind, digest.Short(e.ID)), nil
			}
		}
	}
	return "", nil
}

// Lacks reports whether e speaks of an artifact that is not in the store.
func Lacks(store *artifact.Store, e event.Envelope) (artifact.Ref, bool) {
	for _, ref := range Mentioned(e.Body) {
		if !store.Has(ref) {
			return ref, true
		}
	}
	return artifact.Ref{}, false
}
