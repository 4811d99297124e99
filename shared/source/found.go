package source

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"bitnet1/shared/artifact"
)

// Found is a file that a run reads: where it is, and what identifies it.
type Found struct {
	Name     string // in provenance; the same wherever the files lie
	Location string // a path or a URL, see Path
	Digest   string // of a local file's bytes; of a remote one, Object.Digest
	Size     int64  // bytes
	Version  string // of a remote file, Object.Version
}

// Object is the remote file as Fetch wants it.
func (f Found) Object() Object {
	return Object{Name: f.Name, URL: f.Location, Size: f.Size, Version: f.Version}
}

// FindAll finds all that a user named, here and elsewhere: local files by their names, then remote ones by theirs. What is
// named more than once is there once.
func (c *Client) FindAll(ctx context.Context, locations []string) ([]Found, error) {
	var local []string
	var remote []Found
	for _, location := range locations {
		if !Remote(location) {
			local = append(local, location)
			continue
		}
		objects, err := c.Find(ctx, location)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			remote = append(remote, Found{Name: o.Name, Location: o.URL, Digest: o.Digest(), Size: o.Size, Version: o.Version})
		}
	}
	slices.SortFunc(remote, func(a, b Found) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Location, b.Location), cmp.Compare(a.Digest, b.Digest))
	})
	all, err := digestLocal(ctx, local)
	if err != nil {
		return nil, err
	}
	all = append(all, slices.Compact(remote)...)
	named := map[string]Found{}
	for _, f := range all {
		if other, ok := named[f.Name]; ok {
			return nil, fmt.Errorf("sources %s and %s would both be called %s: give them in runs of their own, or copy one to another name", readable(other.Location), readable(f.Location), f.Name)
		}
		named[f.Name] = f
	}
	return all, nil
}

func digestLocal(ctx context.Context, patterns []string) ([]Found, error) {
	files, err := Local(patterns)
	if err != nil {
		return nil, err
	}
	all := make([]Found, len(files))
	for i, name := range names(files) {
		all[i] = Found{Name: name, Location: location(files[i])}
		if all[i].Digest, all[i].Size, err = digest(ctx, files[i]); err != nil {
			return nil, fmt.Errorf("source %s: %w", readable(files[i]), err)
		}
	}
	return all, nil
}

// Check makes sure that a local file is the one that was found, and returns its path.
func (f Found) Check(ctx context.Context) (string, error) {
	path, _ := Path(f.Location)
	have, _, err := digest(ctx, path)
	if err != nil {
		return "", fmt.Errorf("source %s: %w", f.Name, err)
	}
	if have != f.Digest {
		return "", fmt.Errorf("source %s has changed since the run began (its digest is %s, not %s): start a new run with it", f.Name, artifact.Short(have), artifact.Short(f.Digest))
	}
	return path, nil
}
