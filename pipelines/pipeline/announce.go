package main

import (
	"context"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// announceSources opens the run: its definition, then its sources.
func (l *launcher) announceSources(ctx context.Context) error {
	definition, err := l.definition.Store(l.journal, l.store, l.run)
	if err != nil {
		return err
	}
	announcer := bus.NewAnnouncer(l.journal, l.bus)
	started := event.RunStarted{Pipeline: l.definition.Name, Definition: definition, Sources: len(l.definition.Sources)}
	for _, s := range l.stages {
		started.Stages = append(started.Stages, s.Name)
	}
	if started.Data, err = l.beganIn(); err != nil {
		return err
	}
	if err := l.announce(ctx, announcer, event.Part{}, started); err != nil {
		return err
	}
	for i, s := range l.sources {
		added := event.SourceAdded{Name: s.Name, Path: s.Location, Digest: s.Digest, Size: s.Size, Version: s.Version,
			Parameters: s.Parameters}
		if err := l.announce(ctx, announcer, event.Part{Index: i, Count: len(l.sources)}, added); err != nil {
			return err
		}
	}
	return nil
}

// beganIn is the name that the data directory had when the run began: a directory may be moved during a run.
func (l *launcher) beganIn() (string, error) {
	before, err := journal.Bodies[event.RunStarted](l.journal, l.run)
	if err != nil || len(before) == 0 {
		return artifact.DirectoryName(l.store.Dir()), err
	}
	return before[0].Data, nil
}

func (l *launcher) announce(ctx context.Context, a *bus.Announcer, part event.Part, body event.Body) error {
	e, err := event.New(l.run, launcherName, "", part, body)
	if err != nil {
		return err
	}
	return a.Announce(ctx, e)
}
