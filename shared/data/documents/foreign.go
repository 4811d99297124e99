package documents

import (
	"cmp"
	"fmt"
	"slices"

	"bitnet1/shared/filetype"
)

// readable are the types of files that may hold documents. Compressed files hold a file of another of these types.
var readable = []filetype.Type{
	filetype.Empty, filetype.Text, filetype.JSONObject, filetype.JSONList, filetype.Parquet, filetype.Gzip,
	filetype.Zstd,
}

const (
	readInstead = "documents are read from parquet, JSON Lines and text, plain, gzip or zstd"
	nameOthers  = "it holds no documents, name files of documents instead"
	convert     = "write its rows as parquet or JSON Lines first"
)

// instead is the advice for files that are not readable. Files of types without an entry have a remedy: Type.Remedy.
var instead = map[filetype.Type]string{
	filetype.Binary:      "documents are read from parquet and from text in UTF-8",
	filetype.EmptyZIP:    readInstead,
	filetype.Arrow:       convert,
	filetype.ArrowStream: convert,
	filetype.Feather:     convert,
	filetype.ORC:         convert,
	filetype.Avro:        convert,
	filetype.SQLite:      convert,
	filetype.HDF5:        convert,
	filetype.NumPy:       convert,
	filetype.Pickle:      convert,
	filetype.PDF:         "extract its text first",
	filetype.GGUF:        nameOthers,
	filetype.Program:     nameOthers,
	filetype.Picture:     nameOthers,
	filetype.Safetensors: nameOthers,
	filetype.PackedModel: nameOthers,
	filetype.TrainingLog: nameOthers,
	filetype.TokenBatch:  "tokenize has made it already, pass it to shard",
	filetype.Shard:       "it is made of documents already, pass the dataset's manifest to train",
	filetype.Manifest:    "the dataset is made of documents already, pass the manifest to train, not to tokenize",
	filetype.TextDigests: "it belongs into known of the stage shard",
}

// refuse is the error for a file that is not readable. It says what the file is and what to do about that.
func refuse(t filetype.Type) error {
	if slices.Contains(readable, t) {
		return nil
	}
	return fmt.Errorf("the file is %v: %s", t, cmp.Or(instead[t], t.Remedy()))
}
