package dataset

import (
	"fmt"
	"os"
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
		err = mistaken(err, b[:min(len(b), Sniffed)], ownDataset, "{", nameManifest)
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	d, err := Open(m, locate)
	return d, m, err
}
