// Package lineage finds out where an artifact came from: which jobs made it, with which parameters, for which events,
// of which files and of which rows in them. It reads records of jobs and journals of runs, and draws what it found.
// Repeat does the jobs again and compares what they make.
package lineage

import (
	"encoding/json"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
)

// Format is the version of the JSON of a Graph.
const Format = "bitnet1.lineage.v1"

// Graph is where an artifact came from. Each artifact, job and source is there once, however many jobs read it.
type Graph struct {
	Format    string     `json:"format"`
	Artifact  string     `json:"artifact"`  // digest of the artifact that was asked for
	Artifacts []Artifact `json:"artifacts"` // that one first, then each before what it was made from
	Jobs      []Job      `json:"jobs"`      // each before the jobs that made its inputs
	Sources   []Source   `json:"sources"`
}

// Artifact is a file that a job made, or one that jobs were given.
type Artifact struct {
	Digest string `json:"digest"`
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Job    string `json:"job,omitempty"` // key of the job that made it; empty: none that is known here
	There  bool   `json:"there"`         // its bytes are still in the data directory, or in the folder
	// Rows are the rows of sources in a token batch or a shard that was asked for; those in other batches are with their
	// sources.
	Rows    []Rows `json:"rows,omitempty"`
	Problem string `json:"problem,omitempty"` // why the rows are not known
}

// Job is the work of a stage that made artifacts.
type Job struct {
	Key        string            `json:"key"`
	Stage      string            `json:"stage"`
	Run        string            `json:"run,omitempty"`        // in whose journal its events are; empty: a one-shot run
	Answers    string            `json:"answers,omitempty"`    // kind of the events
	Events     []string          `json:"events,omitempty"`     // their ids
	Parameters json.RawMessage   `json:"parameters,omitempty"` // all that changed what was made
	Given      map[string]string `json:"given,omitempty"`      // those that the run's definition and the command line gave
	Artifacts  []string          `json:"artifacts"`            // digests of the artifacts that it read
	Sources    []string          `json:"sources"`              // ids of the sources that it read
	Named      []string          `json:"named,omitempty"`      // digests of the artifacts that parameters name
	Unknown    []string          `json:"unknown,omitempty"`    // inputs of which nothing is known here
	Problem    string            `json:"problem,omitempty"`    // what is lost of it

	record   *record.Record // nil: lost
	answered []event.Envelope
}

// Source is a file of documents.
type Source struct {
	ID         string          `json:"id"` // of its event
	Name       string          `json:"name"`
	Path       string          `json:"path"` // where it was
	Digest     string          `json:"digest"`
	Size       int64           `json:"size"`
	Parameters json.RawMessage `json:"parameters,omitempty"` // those that differ for this source
	Read       *Read           `json:"read,omitempty"`       // what became of its rows
	Rows       *Rows           `json:"rows,omitempty"`       // those that became documents
	Problem    string          `json:"problem,omitempty"`    // why the rows are not known
}

// Read counts the rows of a source.
type Read struct {
	Rows      int64 `json:"rows"`
	Documents int64 `json:"documents"`
	Nulls     int64 `json:"nulls"`    // rows without text
	Filtered  int64 `json:"filtered"` // rows that met no filter
	Odd       int64 `json:"odd"`      // rows that could not be understood
}

// artifact returns the artifact of a digest; nil if it is not in the graph.
func (g *Graph) artifact(digest string) *Artifact {
	for i := range g.Artifacts {
		if g.Artifacts[i].Digest == digest {
			return &g.Artifacts[i]
		}
	}
	return nil
}

// job returns the job of a key; nil if it is not in the graph.
func (g *Graph) job(key string) *Job {
	for i := range g.Jobs {
		if g.Jobs[i].Key == key {
			return &g.Jobs[i]
		}
	}
	return nil
}

// source returns the source of an id; nil if it is not in the graph.
func (g *Graph) source(id string) *Source {
	for i := range g.Sources {
		if g.Sources[i].ID == id {
			return &g.Sources[i]
		}
	}
	return nil
}
