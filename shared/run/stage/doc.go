// Package stage makes a program of a stage of the pipeline: a function that answers events of one kind. The author
// fills in a Spec and calls Main. Spec.Work gets a Job: the parameters, the input files, a place for output files, and
// Emit for the events that the stage announces. The rest is done for the author. Main connects to the event server,
// takes events from a durable consumer, sends signs of life, tries failed jobs again, keeps what cannot be answered as
// dead letters, and ends cleanly on a signal. The program has three forms:
//
//	<stage> serve                          answer events until stopped
//	<stage> run --in FILE … --out DIR      answer files, without an event server
//	<stage> run --run RUN                  answer the events of a run again, or for the first time
//
// A job is done once: its outputs are recorded under a key (package record) of the stage's name and version, its
// parameters and its inputs. Whoever needs the same job gets the recorded outputs.
//
// The package knows no particular stage. The stages of this project and a user's own are made in the same way.
//
// # Files
//
// For authors: spec.go, job.go, files.go, choice.go, permanent.go, setting.go, times.go.
//
// The command line is in app.go, describe.go, serve.go and oneshot.go; process.go has signals and the log. Service
// (service.go) takes events from the queue: inputs.go and parameters.go say what the job of an event is, failures.go
// what becomes of one that fails. Over an old run, rerun.go takes the events from the journal, and output.go prints
// what came of them. All forms give their jobs to a performer (perform.go): it makes a job of a task (task.go), forgets
// recorded outputs that are damaged (mend.go), calls the author's function (attempt.go) and announces the outputs.
// used.go guards the files of a folder that jobs share.
package stage
