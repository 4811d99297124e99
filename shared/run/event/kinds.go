package event

import (
	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
)

// Kinds lists one zero value of every event that the project itself announces, in the order in which a run meets them.
// The reference page is made from it.
func Kinds() []Body {
	return []Body{
		RunStarted{}, SourceAdded{}, TokensWritten{}, ShardSealed{}, DatasetSealed{},
		CheckpointSaved{}, TrainingFinished{}, EvaluationWritten{}, TasksScored{}, ProbeWritten{}, PackWritten{},
		TextWritten{},
		JobFinished{}, RunFinished{},
	}
}

// RunStarted opens a run: the launcher announces it once.
type RunStarted struct {
	Pipeline   string       `msgpack:"pipeline" json:"pipeline" usage:"name of the pipeline"`
	Definition artifact.Ref `msgpack:"definition" json:"definition" usage:"the resolved pipeline definition: every stage's parameters"`
	Sources    int          `msgpack:"sources" json:"sources" usage:"how many source.added events follow"`
	Stages     []string     `msgpack:"stages" json:"stages" usage:"stages that take part"`
	Data       string       `msgpack:"data" json:"data" usage:"where the run's data directory lay when the run began: host:path; not part of its identity"`
}

// Kind implements Body.
func (RunStarted) Kind() string { return "run.started" }

// Inputs implements Body.
func (e RunStarted) Inputs() []string { return []string{e.Definition.Digest} }

// SourceAdded says that a file of documents belongs to the run.
type SourceAdded struct {
	Name    string `msgpack:"name" json:"name" usage:"name of the source in provenance; never an absolute path"`
	Path    string `msgpack:"path" json:"path" usage:"where the file is, a path or a URL; not part of its identity"`
	Digest  string `msgpack:"digest" json:"digest" usage:"blake3-256 of the file; of a remote one, of its URL, version and size"`
	Size    int64  `msgpack:"size" json:"size" usage:"bytes"`
	Version string `msgpack:"version" json:"version" usage:"of a remote file: its server's word for these very bytes, such as an entity tag"`

	Parameters string `msgpack:"parameters,omitempty" json:"parameters,omitempty" usage:"parameters of the stage tokenize that differ for this source, a JSON object; absent: none"`
}

// Kind implements Body.
func (SourceAdded) Kind() string { return "source.added" }

// Inputs implements Body.
func (e SourceAdded) Inputs() []string {
	if e.Parameters != "" {
		return []string{e.Name, e.Digest, e.Parameters}
	}
	return []string{e.Name, e.Digest}
}

// TokensWritten says that the documents of one source are tokenized.
type TokensWritten struct {
	Source      string       `msgpack:"source" json:"source" usage:"name of the source"`
	Batch       artifact.Ref `msgpack:"batch" json:"batch" usage:"token batch: Arrow IPC, a row per document"`
	Documents   int64        `msgpack:"documents" json:"documents" usage:"documents in the batch"`
	Tokens      int64        `msgpack:"tokens" json:"tokens" usage:"tokens in the batch"`
	Bytes       int64        `msgpack:"bytes" json:"bytes" usage:"bytes of text"`
	Nulls       int64        `msgpack:"nulls" json:"nulls" usage:"rows without text, which are not in the batch"`
	InvalidUTF8 int64        `msgpack:"invalid_utf8" json:"invalid_utf8" usage:"documents that are not valid UTF-8; kept byte for byte"`
	Rows        int64        `msgpack:"rows" json:"rows" usage:"rows read: documents, nulls, filtered and odd"`
	Filtered    int64        `msgpack:"filtered" json:"filtered" usage:"rows that do not meet a filter, which are not in the batch"`
	Refused     string       `msgpack:"refused" json:"refused" usage:"why the file was left out; empty if it was not"`
	Counted     int64        `msgpack:"counted" json:"counted" usage:"documents whose file says how many GPT-2 tokens they have"`
	Miscounted  int64        `msgpack:"miscounted" json:"miscounted" usage:"those of them for which it says another number than ours"`
	Odd         int64        `msgpack:"odd,omitempty" json:"odd,omitempty" usage:"rows that cannot be understood, which are not in the batch; absent: none"`
	OddRows     []string     `msgpack:"odd_rows,omitempty" json:"odd_rows,omitempty" usage:"the first of them: where each is, and why"`

	Tokenizer *artifact.Ref `msgpack:"tokenizer,omitempty" json:"tokenizer,omitempty" usage:"the file, if not built in"`
}

// Kind implements Body.
func (TokensWritten) Kind() string { return "tokens.written" }

// Inputs implements Body: the batch, and a digest of the other fields, which the dataset's report repeats. A field that
// is added is to be omitted where it is empty, so that older events keep their digest.
func (e TokensWritten) Inputs() []string {
	batch := e.Batch.Digest
	e.Batch = artifact.Ref{}
	fields, _ := Marshal(e) // of numbers and strings: it cannot fail
	return []string{batch, digest.Bytes(fields)}
}

// ShardSealed says that one shard of a dataset is complete.
type ShardSealed struct {
	Split     string       `msgpack:"split" json:"split" usage:"train or validation"`
	Index     int          `msgpack:"index" json:"index" usage:"number of the shard in its split, from 0"`
	Shard     artifact.Ref `msgpack:"shard" json:"shard" usage:"fixed-length sequences: Arrow IPC"`
	Sequences int          `msgpack:"sequences" json:"sequences" usage:"sequences in the shard"`
}

// Kind implements Body.
func (ShardSealed) Kind() string { return "shard.sealed" }

// Inputs implements Body.
func (e ShardSealed) Inputs() []string { return []string{e.Shard.Digest} }

// DatasetSealed says that all shards of a dataset are there.
type DatasetSealed struct {
	Manifest         artifact.Ref `msgpack:"manifest" json:"manifest" usage:"the dataset's manifest: counts and digests of its shards"`
	Documents        int64        `msgpack:"documents" json:"documents" usage:"documents in both splits"`
	TrainTokens      int64        `msgpack:"train_tokens" json:"train_tokens" usage:"tokens to predict in the training split"`
	ValidationTokens int64        `msgpack:"validation_tokens" json:"validation_tokens" usage:"tokens to predict in the validation split"`
	Report           artifact.Ref `msgpack:"report" json:"report" usage:"dataset.md: what became of every row, for people"`
	Facts            artifact.Ref `msgpack:"facts" json:"facts" usage:"dataset.json: the same for programs"`
	Texts            artifact.Ref `msgpack:"texts" json:"texts" usage:"digests of the texts of all documents, where duplicates were looked for: later datasets can leave them out"`

	Tokenizer *artifact.Ref `msgpack:"tokenizer,omitempty" json:"tokenizer,omitempty" usage:"the file, if not built in"`
}

// Kind implements Body.
func (DatasetSealed) Kind() string { return "dataset.sealed" }

// Inputs implements Body.
func (e DatasetSealed) Inputs() []string { return withTokenizer(e.Tokenizer, e.Manifest.Digest) }

// TokenizerRef names a tokenizer.json as an artifact. The size is in bytes.
func TokenizerRef(digest string, size int64, name string) artifact.Ref {
	return artifact.Ref{Digest: digest, Kind: "tokenizer", MediaType: "application/json", Size: size, Name: name}
}

// withTokenizer adds the digest of a tokenizer.json, if there is one.
func withTokenizer(tokenizer *artifact.Ref, inputs ...string) []string {
	if tokenizer != nil {
		inputs = append(inputs, tokenizer.Digest)
	}
	return inputs
}

// CheckpointSaved says that the parameters after a step can be used.
type CheckpointSaved struct {
	Step           int          `msgpack:"step" json:"step" usage:"optimizer steps taken"`
	Model          artifact.Ref `msgpack:"model" json:"model" usage:"parameters and configuration: safetensors"`
	State          artifact.Ref `msgpack:"state" json:"state" usage:"optimizer and data-order state, for resuming"`
	Manifest       artifact.Ref `msgpack:"manifest" json:"manifest" usage:"the dataset it was trained on"`
	Tokens         int64        `msgpack:"tokens" json:"tokens" usage:"training tokens seen"`
	TrainBits      float64      `msgpack:"train_bits" json:"train_bits" usage:"training loss since the last checkpoint, bits per token"`
	ValidationBits float64      `msgpack:"validation_bits" json:"validation_bits" usage:"loss on the trainer's validation sample, bits per token"`
	Best           bool         `msgpack:"best" json:"best" usage:"lowest validation_bits so far in this run, of checkpoints whose weights are all ±1"`
	Last           bool         `msgpack:"last" json:"last" usage:"training ends here"`
	Blend          float64      `msgpack:"blend" json:"blend" usage:"share of the float latents in the weights (bonsai); 0: every weight is ±1"`

	Tokenizer *artifact.Ref `msgpack:"tokenizer,omitempty" json:"tokenizer,omitempty" usage:"the file, if not built in"`
	Previous  *artifact.Ref `msgpack:"previous,omitempty" json:"previous,omitempty" usage:"the model saved before it"`
}

// Kind implements Body.
func (CheckpointSaved) Kind() string { return "checkpoint.saved" }

// Inputs implements Body. Previous is none of them: most stages do not read it, and jobs of older events stay done. The
// event of a stage that reads it is a type of its own (docs/examples/flips).
func (e CheckpointSaved) Inputs() []string {
	return withTokenizer(e.Tokenizer, e.Model.Digest, e.Manifest.Digest)
}

// TrainingFinished says that no more checkpoints follow.
type TrainingFinished struct {
	Steps       int          `msgpack:"steps" json:"steps" usage:"optimizer steps taken"`
	Tokens      int64        `msgpack:"tokens" json:"tokens" usage:"training tokens seen"`
	Checkpoints int          `msgpack:"checkpoints" json:"checkpoints" usage:"checkpoints saved"`
	BestStep    int          `msgpack:"best_step" json:"best_step" usage:"step of the checkpoint with the lowest validation loss"`
	Log         artifact.Ref `msgpack:"log" json:"log" usage:"the training log: JSON lines"`
}

// Kind implements Body.
func (TrainingFinished) Kind() string { return "training.finished" }

// Inputs implements Body.
func (e TrainingFinished) Inputs() []string { return []string{e.Log.Digest} }

// EvaluationWritten gives the loss of a checkpoint on the validation split.
type EvaluationWritten struct {
	Step           int          `msgpack:"step" json:"step" usage:"step of the checkpoint"`
	Model          artifact.Ref `msgpack:"model" json:"model" usage:"the checkpoint"`
	Report         artifact.Ref `msgpack:"report" json:"report" usage:"the evaluation: JSON"`
	BitsPerToken   float64      `msgpack:"bits_per_token" json:"bits_per_token" usage:"mean loss over the validation split"`
	BitsPerByte    float64      `msgpack:"bits_per_byte" json:"bits_per_byte" usage:"the same loss over the bytes of its text"`
	UnigramEntropy float64      `msgpack:"unigram_entropy" json:"unigram_entropy" usage:"bits per token of a model that knows the tokens' frequencies in the training split alone"`
	Accuracy       *float64     `msgpack:"accuracy,omitempty" json:"accuracy,omitempty" usage:"share of tokens that are the most probable one, 0 to 1; absent unless it was asked for"`

	BitsPerTokenError *float64 `msgpack:"bits_per_token_error,omitempty" json:"bits_per_token_error,omitempty" usage:"standard error of bits_per_token over sequences; absent for one sequence"`
	UnigramAccuracy   *float64 `msgpack:"unigram_accuracy,omitempty" json:"unigram_accuracy,omitempty" usage:"accuracy of always naming the most frequent token of training; there with accuracy"`
}

// Kind implements Body.
func (EvaluationWritten) Kind() string { return "evaluation.written" }

// Inputs implements Body.
func (e EvaluationWritten) Inputs() []string { return []string{e.Report.Digest} }

// TasksScored gives the scores of a checkpoint on evaluation tasks.
type TasksScored struct {
	Step   int          `msgpack:"step" json:"step" usage:"step of the checkpoint"`
	Model  artifact.Ref `msgpack:"model" json:"model" usage:"the checkpoint"`
	Report artifact.Ref `msgpack:"report" json:"report" usage:"*_tasks.json"`

	Scores SortedMap[SortedMap[TaskScore]] `msgpack:"scores" json:"scores" usage:"by task and metric, a map of value, error (the standard error over examples; absent for a single one) and chance"`
}

// TaskScore is a score in TasksScored.
type TaskScore struct {
	Value  float64  `msgpack:"value" json:"value"`
	Error  *float64 `msgpack:"error,omitempty" json:"error,omitempty"`
	Chance float64  `msgpack:"chance" json:"chance"` // the value of a model that knows nothing
}

// Kind implements Body.
func (TasksScored) Kind() string { return "tasks.scored" }

// Inputs implements Body.
func (e TasksScored) Inputs() []string { return []string{e.Report.Digest} }

// ProbeWritten gives the health of a checkpoint's pointers and its induction.
type ProbeWritten struct {
	Step         int          `msgpack:"step" json:"step" usage:"step of the checkpoint"`
	Model        artifact.Ref `msgpack:"model" json:"model" usage:"the checkpoint"`
	Health       artifact.Ref `msgpack:"health" json:"health" usage:"*_pointer_health.json"`
	Induction    artifact.Ref `msgpack:"induction" json:"induction" usage:"*_induction.json"`
	TopLayer     int          `msgpack:"top_layer" json:"top_layer" usage:"layer of the head with the highest IPMR"`
	TopHead      int          `msgpack:"top_head" json:"top_head" usage:"head with the highest IPMR"`
	TopIPMR      float64      `msgpack:"top_ipmr" json:"top_ipmr" usage:"its induction pointer match rate, 0 to 1"`
	GlobalIPMR   float64      `msgpack:"global_ipmr" json:"global_ipmr" usage:"share of positions where any head matches"`
	CopyAccuracy float64      `msgpack:"copy_accuracy" json:"copy_accuracy" usage:"greedy accuracy on repeated random tokens, 0 to 1"`

	TopIPMRError       *float64 `msgpack:"top_ipmr_error,omitempty" json:"top_ipmr_error,omitempty" usage:"standard error of top_ipmr over sequences; absent for one sequence"`
	RandomIPMR         float64  `msgpack:"random_ipmr" json:"random_ipmr" usage:"match rate of a random key"`
	RandomGlobalIPMR   float64  `msgpack:"random_global_ipmr" json:"random_global_ipmr" usage:"share of positions where any of as many random keys as there are heads matches"`
	Specialists        int      `msgpack:"specialists" json:"specialists" usage:"heads whose match rate is 5 points, and 3 standard errors, above that of a random key"`
	CopyAccuracyError  *float64 `msgpack:"copy_accuracy_error,omitempty" json:"copy_accuracy_error,omitempty" usage:"standard error of copy_accuracy over sequences; absent for one sequence"`
	RandomCopyAccuracy float64  `msgpack:"random_copy_accuracy" json:"random_copy_accuracy" usage:"accuracy of guesses on repeated random tokens"`

	Heads     *artifact.Ref `msgpack:"heads,omitempty" json:"heads,omitempty" usage:"*_heads.json: distances and scores of all heads; absent unless asked for, like the following"`
	Attention *artifact.Ref `msgpack:"attention,omitempty" json:"attention,omitempty" usage:"*_attention.json: which keys each query of a sequence read"`
	Picture   *artifact.Ref `msgpack:"picture,omitempty" json:"picture,omitempty" usage:"*_attention.svg: the same, drawn"`
}

// Kind implements Body.
func (ProbeWritten) Kind() string { return "probe.written" }

// Inputs implements Body.
func (e ProbeWritten) Inputs() []string {
	inputs := []string{e.Health.Digest, e.Induction.Digest}
	for _, ref := range []*artifact.Ref{e.Heads, e.Attention, e.Picture} {
		if ref != nil {
			inputs = append(inputs, ref.Digest)
		}
	}
	return inputs
}

// PackWritten says that a checkpoint is packed.
type PackWritten struct {
	Step  int          `msgpack:"step" json:"step" usage:"step of the checkpoint"`
	Model artifact.Ref `msgpack:"model" json:"model" usage:"the checkpoint"`
	Pack  artifact.Ref `msgpack:"pack" json:"pack" usage:"the .bit2 file"`

	Tokenizer *artifact.Ref `msgpack:"tokenizer,omitempty" json:"tokenizer,omitempty" usage:"the file, if not built in"`
}

// Kind implements Body.
func (PackWritten) Kind() string { return "pack.written" }

// Inputs implements Body.
func (e PackWritten) Inputs() []string { return []string{e.Pack.Digest} }

// TextWritten says that a packed model has continued prompts.
type TextWritten struct {
	Step     int          `msgpack:"step" json:"step" usage:"step of the checkpoint"`
	Pack     artifact.Ref `msgpack:"pack" json:"pack" usage:"the .bit2 file"`
	Text     artifact.Ref `msgpack:"text" json:"text" usage:"prompts and their continuations: *_text.json"`
	Texts    int          `msgpack:"texts" json:"texts" usage:"continuations"`
	Tokens   int          `msgpack:"tokens" json:"tokens" usage:"tokens of all continuations"`
	Repeated *float64     `msgpack:"repeated,omitempty" json:"repeated,omitempty" usage:"share of 4-grams of tokens that their continuation has before, 0 to 1; absent where none has four tokens"`
}

// Kind implements Body.
func (TextWritten) Kind() string { return "text.written" }

// Inputs implements Body.
func (e TextWritten) Inputs() []string { return []string{e.Text.Digest} }

// JobFinished says that a stage has answered an event, whatever came of it. A run has finished when every event in it
// is answered by every stage that listens for its kind.
type JobFinished struct {
	Listener string `msgpack:"listener" json:"listener" usage:"the stage"`
	Input    string `msgpack:"input" json:"input" usage:"id of the event answered"`
	Key      string `msgpack:"key" json:"key" usage:"key of the job; empty while a gathering stage waits for more parts"`
	Outcome  string `msgpack:"outcome" json:"outcome" usage:"done, waiting or failed"`
	Cause    string `msgpack:"cause" json:"cause" usage:"why it failed"`
	At       int64  `msgpack:"at" json:"at" usage:"when it failed, Unix milliseconds, so that every failure is a fact of its own; 0 otherwise"`
}

// Outcomes of a job.
const (
	Done    = "done"
	Waiting = "waiting"
	Failed  = "failed"
)

// Kind implements Body.
func (JobFinished) Kind() string { return "job.finished" }

// Inputs implements Body.
func (e JobFinished) Inputs() []string { return []string{e.Listener, e.Input, e.Outcome} }

// RunFinished closes a run.
type RunFinished struct {
	Events int `msgpack:"events" json:"events" usage:"events announced in the run before this one"`
}

// Kind implements Body.
func (RunFinished) Kind() string { return "run.finished" }

// Inputs implements Body.
func (RunFinished) Inputs() []string { return nil }
