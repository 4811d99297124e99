package dataset

import (
	"fmt"
	"os"

	"bitnet1/shared/filetype"
)

const nameManifest = "name the manifest.json of a dataset, which shard writes beside the shards"

// Load reads the manifest at path and opens its dataset; locate gives the file of each shard.
func Load(path string, locate func(Shard) (string, error)) (*Dataset, *Manifest, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := ParseManifest(b)
	if err != nil {
		err = mistaken(err, filetype.Of(b), filetype.Manifest, nameManifest)
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	d, err := Open(m, locate)
	return d, m, err
}

// mistaken explains the error of a reader by the type of the file. A file of the wanted type is damaged, so the error
// stays. For any other file the new error says what the file is and what to name instead.
func mistaken(err error, is, wanted filetype.Type, instead string) error {
	switch is {
	case wanted, ordinary[wanted]:
		return err
	}
	return fmt.Errorf("the file is %v and not %v: %s", is, wanted, instead)
}

// ordinary are the types that damaged files of the wanted types appear to be.
var ordinary = map[filetype.Type]filetype.Type{
	filetype.TokenBatch: filetype.Arrow, filetype.Manifest: filetype.JSONObject,
}
